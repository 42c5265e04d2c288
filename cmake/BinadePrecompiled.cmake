# Precompiled headers: what most sources of a target include, read once. A build has none of them with
# -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON; sources include what they use, so both builds are the same.

# Of the standard library. A header of this tree belongs to a list if a change of it compiles most sources
# of the target anew in any case. nlohmann-json belongs to none: read in advance it costs each source half a
# second, whether it uses it or not.
set(BINADE_STANDARD_HEADERS <algorithm> <array> <cmath> <cstdint> <cstring> <filesystem> <functional> <limits> <map> <memory>
    <numeric> <optional> <sstream> <string> <string_view> <unordered_map> <utility> <vector>)

# What is compiled with a precompiled header is kept by ccache only if told so. ccache also learns the
# included files from the compiler then, and need not preprocess each source on its own.
foreach(language CXX CUDA)
  if(CMAKE_${language}_COMPILER_LAUNCHER MATCHES "ccache$")
    list(PREPEND CMAKE_${language}_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_DEPEND=true
         CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime)
  endif()
endforeach()
