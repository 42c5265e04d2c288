// INTERNAL. Token ids as configurations name them. For .cpp files only.
#pragma once

#include <binade/core/log.h>
#include <binade/nn/json_reader.h>

namespace binade::nn {

// None, one or a list. Ids that are no token of the vocabulary are warned about and left out, as
// models that pad with -1 or with a token of an extended vocabulary work without them.
inline std::vector<int64_t> read_special_ids(const JsonReader& reader, const char* key,
                                             const std::string& source, int64_t vocab_size) {
  std::vector<int64_t> ids = reader.list<int64_t>(key);
  std::erase_if(ids, [&](int64_t id) {
    const bool unknown = id < 0 || id >= vocab_size;
    if (unknown)
      log_warning(source, ": ", key, " names the token ", id, ", but the vocabulary has ",
                  vocab_size, " tokens; it is ignored");
    return unknown;
  });
  return ids;
}

}  // namespace binade::nn
