# Finds cuDNN 9: the target cudnn::cudnn and Cudnn_VERSION. It is looked for in the CUDA toolkit, on
# the system, and in the cache folder where scripts/setup.sh puts what it takes from pip wheels.
find_path(Cudnn_INCLUDE_DIR cudnn.h
          HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${BINADE_CACHE_DIR}/cudnn/include)
find_library(Cudnn_LIBRARY NAMES cudnn libcudnn.so.9
             HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS ${BINADE_CACHE_DIR}/cudnn/lib)
mark_as_advanced(Cudnn_INCLUDE_DIR Cudnn_LIBRARY)

if(Cudnn_INCLUDE_DIR AND EXISTS ${Cudnn_INCLUDE_DIR}/cudnn_version.h)
  file(STRINGS ${Cudnn_INCLUDE_DIR}/cudnn_version.h version_lines
       REGEX "^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
  string(REGEX MATCHALL "[0-9]+" Cudnn_VERSION "${version_lines}")
  list(JOIN Cudnn_VERSION "." Cudnn_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Cudnn REQUIRED_VARS Cudnn_LIBRARY Cudnn_INCLUDE_DIR
                                  VERSION_VAR Cudnn_VERSION)
if(Cudnn_FOUND AND NOT TARGET cudnn::cudnn)
  add_library(cudnn::cudnn SHARED IMPORTED)
  set_target_properties(cudnn::cudnn PROPERTIES
    IMPORTED_LOCATION ${Cudnn_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${Cudnn_INCLUDE_DIR})
endif()
