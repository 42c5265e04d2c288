// Pictures: arrays (3, H, W) f32 on the CPU, red, green and blue in [−1, 1], and files of them.
#pragma once

#include <filesystem>
#include <vector>

#include <binade/core/array.h>

namespace binade::data {

// A PNG or JPEG file; what is transparent lies on white. Throws Error for a file that is missing,
// is no such picture or is damaged, and for one of more than 2^26 pixels.
Array read_picture(const std::filesystem::path& path);

// Writes a PNG of 8 bits a channel, atomically; values beyond [−1, 1] are clamped. A grey picture
// is (1, H, W). Throws Error for another shape, and where the file cannot be written.
void write_png(const std::filesystem::path& path, const Array& picture);

// Pictures in rows of at most `columns`, each in the top left of a cell that is as large as the
// largest, on black, with `gap` pixels between. Grey beside colour becomes colour.
Array contact_sheet(const std::vector<Array>& pictures, int64_t columns, int64_t gap = 1);

}  // namespace binade::data
