// Handles of cuBLASLt and cuDNN, workspace for them, and checks of their statuses. Included by
// cuda/*.cpp only.
#pragma once

#include <cublasLt.h>
#include <cudnn.h>

#include <binade/core/array.h>

namespace binade::cuda {

// Throws Error naming the call that failed.
void check_cublas(cublasStatus_t status, const char* what);
void check_cudnn(cudnnStatus_t status, const char* what);

// The calling thread's handle for the current device, made at first use or left by a thread that
// ended.
cublasLtHandle_t cublaslt_handle();
// Likewise; it is set to the current stream.
cudnnHandle_t cudnn_handle();

// Scratch memory of the current device for work that is queued on the current stream: it goes back
// to the stream-ordered pool with its last handle.
Array workspace(int64_t bytes);

}  // namespace binade::cuda
