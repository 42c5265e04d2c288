# Finds the libraries of the README's dependency table. scripts/setup.sh installs them.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
find_package(dnnl QUIET)  # oneDNN: CPU products and convolutions; Eigen is the fallback

function(binade_link_dependencies target)
  target_link_libraries(${target}
    PUBLIC Threads::Threads
    PRIVATE OpenMP::OpenMP_CXX Eigen3::Eigen fmt::fmt spdlog::spdlog nlohmann_json::nlohmann_json
            PkgConfig::sentencepiece PkgConfig::pcre2 PkgConfig::utf8proc)
  if(dnnl_FOUND)
    target_link_libraries(${target} PRIVATE DNNL::dnnl)
    target_compile_definitions(${target} PRIVATE BINADE_HAVE_ONEDNN=1)
  else()
    target_compile_definitions(${target} PRIVATE BINADE_HAVE_ONEDNN=0)
  endif()
  target_compile_definitions(${target} PRIVATE SPDLOG_FMT_EXTERNAL)
  if(BINADE_HAVE_CUDA)
    target_link_libraries(${target} PRIVATE CUDA::cudart)
  endif()
endfunction()
