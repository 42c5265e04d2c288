# The rooms of the library stand at the top of the repository; `#include <binade/nn/linear.h>` finds them
# through a folder of links in the build folder, one link a room.
set(BINADE_ROOMS core autograd data dist optim nn amp infer train heads)
set(BINADE_INCLUDE_ROOT ${PROJECT_BINARY_DIR}/include)
foreach(entry IN LISTS BINADE_ROOMS ITEMS binade.h)
  file(MAKE_DIRECTORY ${BINADE_INCLUDE_ROOT}/binade)
  set(link ${BINADE_INCLUDE_ROOT}/binade/${entry})
  set(target ${PROJECT_SOURCE_DIR}/${entry})
  set(present "")
  if(IS_SYMLINK ${link})
    file(READ_SYMLINK ${link} present)
  endif()
  if(NOT present STREQUAL target)
    file(CREATE_LINK ${target} ${link} SYMBOLIC)
  endif()
endforeach()

# Adds the sources of a room to the library. Those in a folder named `cuda` are compiled only where
# there is a CUDA toolkit; *_sm90.cu are a target of their own (core/kernels/cuda/CMakeLists.txt).
function(binade_room)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp
                                              ${CMAKE_CURRENT_SOURCE_DIR}/*.cu)
  list(FILTER sources EXCLUDE REGEX "_sm90\\.cu$")
  if(NOT BINADE_HAVE_CUDA)
    list(FILTER sources EXCLUDE REGEX "/cuda/")
  endif()
  target_sources(binade PRIVATE ${sources})
endfunction()
