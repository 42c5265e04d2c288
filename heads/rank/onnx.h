// A ranker as an ONNX model, which takes raw features: scaling, network and what makes a score of
// the network's numbers are in one graph.
#pragma once

#include <string>

#include <binade/heads/rank/files.h>

namespace binade::heads::rank {

// The bytes of a model of opset 17 (IR 8).
//
//   features (documents, F) f32   as they stand in the files
//   scores   (documents)    f32   what documents are ranked by
//
// Where needs_list() says so the documents must be those of one list, 1 or more; otherwise any, as
// each is scored by itself. Scaling is computed in f64, as FeatureScaling does, the network in f32.
// The model's metadata name the loss, the scaling and which of the two the input is. Throws Error
// for what does not fit into a file of protobuf, 2 GiB.
std::string to_onnx(const SavedRanker& saved);

// Whether a document's score depends on the others of its list: attention, scaling by minmax.
bool needs_list(const SavedRanker& saved);

}  // namespace binade::heads::rank
