// INTERNAL. Writing to a file descriptor without being killed for it.
#pragma once

#include <cstddef>

namespace binade {

// Writes the whole block; false with the reason in errno. A file at the limit of file sizes and a
// pipe without a reader are such reasons (EFBIG, EPIPE): the signals that the system sends the
// thread with them (SIGXFSZ, SIGPIPE), which end a process by default, are held back and dropped.
bool write_all(int descriptor, const void* data, size_t bytes);

}  // namespace binade
