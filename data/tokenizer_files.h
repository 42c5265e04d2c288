// Which files of a folder are a tokenizer.
#pragma once

#include <filesystem>

namespace binade::data {

// Whether the folder has files that load_tokenizer would read.
bool has_tokenizer(const std::filesystem::path& folder);

}  // namespace binade::data
