#pragma once

namespace binade::cuda {

// The lowest compute capability that this build has code for, as 10·major + minor. Newer cards run
// it too, as the build carries PTX.
int oldest_architecture();

}  // namespace binade::cuda
