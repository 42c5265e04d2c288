# Decides whether the CUDA kernels are built: sets BINADE_HAVE_CUDA, enables the language, and finds
# cuDNN and the headers of cudnn-frontend. BINADE_HAVE_CUTLASS is whether those of them are, too, that
# need CUTLASS and a GPU of compute capability 9.0.
#
# A toolkit is looked for at CUDACXX, CUDA_HOME, PATH and /usr/local/cuda, then in the cache folder,
# where scripts/setup.sh puts one that it makes from pip wheels.
if(DEFINED ENV{BINADE_CACHE})
  set(BINADE_CACHE_DIR $ENV{BINADE_CACHE})
else()
  set(BINADE_CACHE_DIR $ENV{HOME}/.cache/binade)
endif()

set(BINADE_CUDA_ARCHITECTURES 90 CACHE STRING
    "Compute capabilities to build for, for example 90, or `release`: 80, 90 and PTX for newer ones")
if(BINADE_CUDA_ARCHITECTURES STREQUAL "release")
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
else()
  set(CMAKE_CUDA_ARCHITECTURES ${BINADE_CUDA_ARCHITECTURES})
endif()

# Sets BINADE_HAVE_CUDA, or `missing` to what stands in the way.
macro(binade_find_cuda)
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(BINADE_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin
                 PATHS /usr/local/cuda/bin ${BINADE_CACHE_DIR}/cuda/bin)
    if(BINADE_NVCC)
      set(CMAKE_CUDA_COMPILER ${BINADE_NVCC})
    endif()
  endif()
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(missing "no CUDA toolkit was found")
  else()
    enable_language(CUDA)
    find_package(CUDAToolkit QUIET)
    find_package(Cudnn QUIET)
    find_package(CudnnFrontend QUIET)
    if(NOT CUDAToolkit_FOUND OR CUDAToolkit_VERSION VERSION_LESS 12.4)
      set(missing "the CUDA toolkit of ${CMAKE_CUDA_COMPILER} is older than 12.4 or incomplete")
    elseif(NOT Cudnn_FOUND)
      set(missing "cuDNN 9 (cudnn.h, libcudnn.so) was not found")
    elseif(NOT CudnnFrontend_FOUND)
      set(missing "the headers of cudnn-frontend were not found")
    else()
      set(BINADE_HAVE_CUDA ON)
    endif()
  endif()
endmacro()

set(BINADE_HAVE_CUDA OFF)
set(BINADE_HAVE_CUTLASS OFF)
if(BINADE_CUDA)
  binade_find_cuda()
endif()

if(BINADE_HAVE_CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's flag yet
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  message(STATUS "Binade: CUDA kernels are built with toolkit ${CUDAToolkit_VERSION}, "
                 "cuDNN ${Cudnn_VERSION}, for architectures ${CMAKE_CUDA_ARCHITECTURES}")
  if(CMAKE_CUDA_ARCHITECTURES MATCHES "(^|;)90a?(-real)?(;|$)")
    find_package(Cutlass 4 QUIET)
    set(BINADE_HAVE_CUTLASS ${Cutlass_FOUND})
    if(NOT Cutlass_FOUND)
      message(STATUS "Binade: the headers of CUTLASS 4 were not found (scripts/setup.sh gets them from "
                     "pip); products with GELU go through cuBLASLt, which is slower")
    endif()
  endif()
elseif(BINADE_CUDA STREQUAL "AUTO")
  message(STATUS "Binade: CUDA kernels are not built, as ${missing} (scripts/setup.sh --cuda wheels "
                 "gets it from pip)")
elseif(BINADE_CUDA)
  message(FATAL_ERROR "BINADE_CUDA=${BINADE_CUDA}, but ${missing}. Run scripts/setup.sh, "
                      "scripts/setup.sh --cuda wheels if there is no toolkit, or set CUDACXX to "
                      "an nvcc of version 12.4 or newer.")
else()
  message(STATUS "Binade: CUDA kernels are not built (BINADE_CUDA=OFF)")
endif()
