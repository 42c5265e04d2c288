# Finds the headers of cudnn-frontend: the target cudnn_frontend. They are looked for on the system
# and in the cache folder, where scripts/setup.sh puts what it takes from the pip wheel.
find_path(CudnnFrontend_INCLUDE_DIR cudnn_frontend.h
          HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${BINADE_CACHE_DIR}/cudnn-frontend/include)
mark_as_advanced(CudnnFrontend_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CudnnFrontend REQUIRED_VARS CudnnFrontend_INCLUDE_DIR)
if(CudnnFrontend_FOUND AND NOT TARGET cudnn_frontend)
  add_library(cudnn_frontend INTERFACE)
  target_include_directories(cudnn_frontend SYSTEM INTERFACE ${CudnnFrontend_INCLUDE_DIR})
  # The headers call NVRTC for one of their kernels. It is linked by its path, as CMake's target for it
  # brings in the driver's libcuda, without which our programs must start.
  target_link_libraries(cudnn_frontend INTERFACE cudnn::cudnn CUDA::cudart ${CUDA_nvrtc_LIBRARY})
endif()
