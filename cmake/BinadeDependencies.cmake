# Finds the libraries of the README's dependency table. scripts/setup.sh installs them.

# Notes the Debian package to install unless `package` was found.
set(missing "")
set(missing_packages "")
macro(binade_require package debian_package)
  if(NOT ${package}_FOUND)
    list(APPEND missing ${package})
    list(APPEND missing_packages ${debian_package})
  endif()
endmacro()
# The same for a library that has no CMake package, only a pkg-config file.
macro(binade_require_module target module debian_package)
  if(PkgConfig_FOUND)
    pkg_check_modules(${target} QUIET IMPORTED_TARGET ${module})
  endif()
  binade_require(${target} ${debian_package})
endmacro()

find_package(OpenMP QUIET COMPONENTS CXX)
binade_require(OpenMP g++)
find_package(Threads QUIET)
binade_require(Threads libc6-dev)
find_package(Eigen3 3.4 QUIET NO_MODULE)
binade_require(Eigen3 libeigen3-dev)
find_package(fmt QUIET)
binade_require(fmt libfmt-dev)
find_package(spdlog QUIET)
binade_require(spdlog libspdlog-dev)
find_package(nlohmann_json QUIET)
binade_require(nlohmann_json nlohmann-json3-dev)
find_package(PkgConfig QUIET)
binade_require(PkgConfig pkg-config)
binade_require_module(sentencepiece sentencepiece libsentencepiece-dev)
binade_require_module(pcre2 libpcre2-8 libpcre2-dev)
binade_require_module(utf8proc libutf8proc libutf8proc-dev)
find_package(ZLIB QUIET)
binade_require(ZLIB zlib1g-dev)
find_package(PNG QUIET)
binade_require(PNG libpng-dev)
find_package(JPEG QUIET)
binade_require(JPEG libjpeg-dev)

if(missing)
  list(JOIN missing ", " names)
  list(JOIN missing_packages " " packages)
  if("PkgConfig" IN_LIST missing)
    string(APPEND names " (without pkg-config the libraries that only it finds count as missing)")
  endif()
  message(FATAL_ERROR "Binade needs what was not found: ${names}. scripts/setup.sh installs all that the "
                      "build needs; on Debian and Ubuntu so does\n  apt-get install ${packages}")
endif()

# oneDNN: f32 convolutions on the CPU; our own kernels are the fallback. Its CMake package is passed by, as
# Debian's asks for OpenCL's headers, which nothing here uses.
find_path(ONEDNN_INCLUDE_DIR dnnl.hpp)
find_library(ONEDNN_LIBRARY dnnl)
mark_as_advanced(ONEDNN_INCLUDE_DIR ONEDNN_LIBRARY)
if(ONEDNN_INCLUDE_DIR AND ONEDNN_LIBRARY)
  set(ONEDNN_FOUND ON)
  add_library(onednn SHARED IMPORTED)
  set_target_properties(onednn PROPERTIES
    IMPORTED_LOCATION ${ONEDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${ONEDNN_INCLUDE_DIR})
else()
  message(STATUS "Binade: oneDNN (Debian package libdnnl-dev) was not found; f32 convolutions "
                 "on the CPU take our own kernels, which are slower for small images and many groups")
endif()

function(binade_link_dependencies target)
  target_link_libraries(${target}
    PUBLIC Threads::Threads
    PRIVATE OpenMP::OpenMP_CXX Eigen3::Eigen fmt::fmt spdlog::spdlog nlohmann_json::nlohmann_json
            PkgConfig::sentencepiece PkgConfig::pcre2 PkgConfig::utf8proc ZLIB::ZLIB
            PNG::PNG JPEG::JPEG)
  if(ONEDNN_FOUND)
    target_link_libraries(${target} PRIVATE onednn)
    target_compile_definitions(${target} PRIVATE BINADE_HAVE_ONEDNN=1)
  else()
    target_compile_definitions(${target} PRIVATE BINADE_HAVE_ONEDNN=0)
  endif()
  target_compile_definitions(${target} PRIVATE SPDLOG_FMT_EXTERNAL)
  if(BINADE_HAVE_CUDA)
    # Shared libraries of the toolkit only, none of the driver's: the programs start without a GPU.
    target_link_libraries(${target} PRIVATE CUDA::cudart CUDA::cublas CUDA::cublasLt cudnn::cudnn
                                            cudnn_frontend)
    # CMake takes the toolkit's folder for one of the linker's own and leaves it out of the rpath.
    get_filename_component(cudnn_folder ${Cudnn_LIBRARY} DIRECTORY)
    set(folders ${CUDAToolkit_LIBRARY_DIR} ${cudnn_folder})
    list(REMOVE_DUPLICATES folders)
    set_target_properties(${target} PROPERTIES BUILD_RPATH "${folders}" INSTALL_RPATH "${folders}")
  endif()
endfunction()
