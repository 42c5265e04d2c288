// Switches of the GPU's libraries (cuBLASLt, cuDNN), and the table of chosen matmul algorithms.
// No CUDA header is needed here; the functions exist where kCudaBuilt.
#pragma once

#include <string>
#include <string_view>

#include <binade/core/device.h>

namespace binade::cuda {

// Whether f32 matmuls and convolutions may round their inputs to TF32 (10 bits of mantissa).
// Process-wide; off at the start.
void set_allow_tf32(bool allow);
bool allow_tf32();

// Bitwise reproducible runs: cuDNN's deterministic attention backward, and matmul algorithms that
// are cuBLASLt's first suggestion (or the imported table's) instead of the fastest of a timing.
// Everything else is deterministic in any case. Process-wide; off at the start.
void set_deterministic(bool deterministic);
bool deterministic();

// The matmul algorithms chosen so far on GPUs of the kind of `device`, as JSON text: kept in a run
// folder, it makes a later run choose the same ones, and so compute the same bits.
std::string export_matmul_algorithms(Device device);
// Reads such a table for GPUs of the kind of `device`; its entries replace those of equal problems.
// Returns false, and takes nothing, when the table comes from another cuBLASLt version or another
// kind of GPU. Throws Error for text that is not such a table.
bool import_matmul_algorithms(std::string_view table, Device device);

}  // namespace binade::cuda
