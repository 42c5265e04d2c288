// The device that this process emulates.
#pragma once

namespace emulated {

// Few make the loops of kernels over a bounded grid go round several times; 1, of 256
// threads, unless set.
void set_multiprocessors(int count);

}  // namespace emulated
