// The IDX format of MNIST and its kin (LeCun et al. 1998): a big-endian header, then bytes. Files
// may be gzipped.
#pragma once

#include <filesystem>

#include <binade/core/array.h>

namespace binade::data {

// The array of a file of unsigned bytes, (N, H, W) for images and (N) for labels, dtype u8. Throws
// Error for files that are missing, truncated, too long, of another element type, or larger than 1
// GiB.
Array read_idx(const std::filesystem::path& path);

}  // namespace binade::data
