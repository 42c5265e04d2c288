# Finds the libraries of the README's dependency table. scripts/setup.sh installs them.

# Stops with the Debian package to install unless `package` was found.
function(binade_require package debian_package)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "${package} was not found. Run scripts/setup.sh, which installs all that "
                        "the build needs, or install the Debian package ${debian_package}.")
  endif()
endfunction()

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
pkg_check_modules(sentencepiece QUIET IMPORTED_TARGET sentencepiece)
binade_require(sentencepiece libsentencepiece-dev)
pkg_check_modules(pcre2 QUIET IMPORTED_TARGET libpcre2-8)
binade_require(pcre2 libpcre2-dev)
pkg_check_modules(utf8proc QUIET IMPORTED_TARGET libutf8proc)
binade_require(utf8proc libutf8proc-dev)
find_package(ZLIB QUIET)
binade_require(ZLIB zlib1g-dev)

# oneDNN: CPU products and convolutions; Eigen is the fallback. Its own CMake package is passed by, as
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
  message(STATUS "Binade: oneDNN (Debian package libdnnl-dev) was not found; CPU products go "
                 "through Eigen, which is slower")
endif()

function(binade_link_dependencies target)
  target_link_libraries(${target}
    PUBLIC Threads::Threads
    PRIVATE OpenMP::OpenMP_CXX Eigen3::Eigen fmt::fmt spdlog::spdlog nlohmann_json::nlohmann_json
            PkgConfig::sentencepiece PkgConfig::pcre2 PkgConfig::utf8proc ZLIB::ZLIB)
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
