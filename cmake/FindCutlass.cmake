# Finds the headers of CUTLASS: the target cutlass and Cutlass_VERSION. They are looked for on the
# system and in the cache folder, where scripts/setup.sh puts what it takes from the pip wheel.
find_path(Cutlass_INCLUDE_DIR cutlass/version.h
          HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${BINADE_CACHE_DIR}/cutlass/include)
mark_as_advanced(Cutlass_INCLUDE_DIR)

if(Cutlass_INCLUDE_DIR)
  file(STRINGS ${Cutlass_INCLUDE_DIR}/cutlass/version.h version_lines
       REGEX "^#define CUTLASS_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" Cutlass_VERSION "${version_lines}")
  list(JOIN Cutlass_VERSION "." Cutlass_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Cutlass REQUIRED_VARS Cutlass_INCLUDE_DIR
                                  VERSION_VAR Cutlass_VERSION)
if(Cutlass_FOUND AND NOT TARGET cutlass)
  add_library(cutlass INTERFACE)
  target_include_directories(cutlass SYSTEM INTERFACE ${Cutlass_INCLUDE_DIR})
endif()
