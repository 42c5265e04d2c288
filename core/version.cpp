#include <binade/core/version.h>

#include <Eigen/Core>

#include <binade/core/error.h>
#include <binade/core/kernels/cpu/matmul/amx_tile.h>
#include <binade/core/kernels/cpu/matmul/micro_kernel.h>
#if BINADE_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif
#if BINADE_HAVE_CUDA
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#endif

namespace binade {

namespace {

// How large f32 matmuls are computed on this processor.
const char* cpu_products() {
  using namespace kernels::cpu;
  if (tile_kernel() != nullptr) return "amx: six products of bf16 parts";
  return &micro_kernel() == &kMicroKernelAvx512 ? "avx512" : "avx2";
}

}  // namespace

int version() {
  return BINADE_VERSION;
}

std::vector<std::pair<std::string, std::string>> version_facts() {
  std::vector<std::pair<std::string, std::string>> facts = {
      {"binade",
       concat(BINADE_VERSION_MAJOR, '.', BINADE_VERSION_MINOR, '.', BINADE_VERSION_PATCH)},
      {"commit", BINADE_COMMIT},
      {"compiler", __VERSION__},
      {"eigen", concat(EIGEN_WORLD_VERSION, '.', EIGEN_MAJOR_VERSION, '.', EIGEN_MINOR_VERSION)},
      {"cpu_products", cpu_products()}};
#if BINADE_HAVE_ONEDNN
  const dnnl_version_t* onednn = dnnl::version();
  facts.emplace_back("onednn", concat(onednn->major, '.', onednn->minor, '.', onednn->patch));
#endif
#if BINADE_HAVE_CUDA
  int runtime = 0, driver = 0;
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess)
    facts.emplace_back("cuda", std::to_string(runtime));
  if (cudaDriverGetVersion(&driver) == cudaSuccess)
    facts.emplace_back("cuda_driver", std::to_string(driver));
  facts.emplace_back("cublaslt", std::to_string(cublasLtGetVersion()));
  facts.emplace_back("cudnn", std::to_string(cudnnGetVersion()));
#endif
  return facts;
}

}  // namespace binade
