// A ranker as a header of C99, for programs that score documents without Binade.
#pragma once

#include <string>
#include <string_view>

#include <binade/heads/rank/files.h>

namespace binade::heads::rank {

// The text of a header that needs nothing but <math.h>. It has the weights as constants and
//
//   enum { NAME_features = F };
//   static inline float NAME_score(const float* features);
//
// which takes a document's F raw features and gives what documents are ranked by. Scaling is
// computed in double, the network in float. C++ takes the header, too. Throws Error for a name that
// is no identifier of C, for a ranker whose scores depend on the other documents of a list
// (needs_list(), onnx.h), and for layers of more than 65,536 numbers, which lie on the stack.
std::string to_c_header(const SavedRanker& saved, std::string_view name);

}  // namespace binade::heads::rank
