// INTERNAL. What the tensors of multi-token prediction are called in files, and how they differ
// from the parameters.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <binade/heads/mtp/files.h>

namespace binade::heads::mtp {

// By MtpHeads' names of parameters.
using FileNames = std::map<std::string, std::string>;
FileNames file_names(Format format, const MtpHeads& heads);

// Tensors that files hold beside the parameters.
struct ExtraNames {
  std::vector<std::string> embeddings, outputs;  // copies of the model's
  std::map<std::string, int64_t> zero_biases;    // sizes
};
ExtraNames extra_names(Format format, const MtpHeads& heads);

// Whether files hold w − 1 for the parameter's w.
bool is_stored_from_one(Format format, const std::string& own_name);

}  // namespace binade::heads::mtp
