// Device memory whose every block lies between pages that cannot be touched.
#pragma once

#include <cstddef>
#include <string>

namespace emulated {

// Blocks end at such a page, but for up to 15 bytes, and in every second call begin at one. Filled
// with a pattern (NaN of each floating dtype).
void* allocate(size_t bytes);
// Throws std::runtime_error at an address that allocate() did not give.
void release(void* data);

// Where the rest of a block's pages was written, says beside which block, and mends it; otherwise
// empty.
std::string find_damage();

// "40 bytes behind a block of 1000 bytes", or that no block is near. Looks only at what is there
// already: for a signal handler.
std::string describe_address(const void* address);

}  // namespace emulated
