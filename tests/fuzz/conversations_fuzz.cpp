// Any bytes taken for a file of conversations: an Error, or conversations that are written.
#include <binade/core/error.h>
#include <binade/data/conversations.h>

#include "scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade::data;
  try {
    for (const Conversation& conversation :
         read_conversations(binade::fuzz::file_of(data, size), {.skip_bad = true})) {
      conversation_line(conversation);
    }
  } catch (const binade::Error&) {
  }
  return 0;
}
