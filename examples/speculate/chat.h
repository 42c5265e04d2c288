// A chat in the terminal.
#pragma once

#include <binade/heads/decoding/speculative_decoder.h>

#include "session.h"

namespace binade::examples {

// Reads messages, a line each, from standard input until it ends, and writes replies as they come.
// The chat goes on from message to message; a model without a chat template continues each text.
void chat(const Session& session, const SpeculateOptions& options,
          const heads::decoding::DraftTree& tree);

}  // namespace binade::examples
