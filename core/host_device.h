// For functions of headers that kernels of both devices share.
#pragma once

#ifdef __CUDACC__
#define BINADE_HOST_DEVICE __host__ __device__
#else
#define BINADE_HOST_DEVICE
#endif
