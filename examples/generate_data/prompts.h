// From files of prompts to conversations that wait for replies.
#pragma once

#include <string>
#include <vector>

#include <binade/heads/decoding/dialogue.h>

#include "options.h"

namespace binade::examples {

struct Prompt {
  heads::decoding::Dialogue dialogue;
  std::vector<int32_t> ids;  // up to the first reply; none: too long
};

struct Prompts {
  std::vector<Prompt> all;  // by number, in the order of the files
  int64_t longest = 0;      // tokens of one that is not too long
  int64_t too_long = 0;
  std::vector<std::string> places;  // of the first few that are too long
  int64_t bad = 0;                  // records that were passed over
  uint32_t checksum = 0;            // CRC-32C of all tokens
};

// Throws Error for bad records unless they are to be passed over, and where nothing is left to
// write a reply to. A prompt is too long if it and a reply do not fit `capacity`.
Prompts read_prompts(const GenerateDataOptions& options, const LoadedModel& loaded,
                     const heads::decoding::Spelling& spelling, int64_t capacity);

}  // namespace binade::examples
