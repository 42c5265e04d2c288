// Conversations and texts that a program trains on, packed into rows.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <binade/heads/decoding/documents.h>

namespace binade::examples {

struct DocumentSources {
  std::vector<std::string> chats;         // files of conversations
  std::filesystem::path template_folder;  // of the chat template
  bool skip_bad = false;                  // passes over bad records
  std::vector<std::string> text;          // files and folders, all of which is learned
  double validation_fraction = 0;
  heads::decoding::PackingOptions packing;
};

// What is trained on, and the part that is kept for validation, which may be null.
struct Documents {
  std::shared_ptr<const heads::decoding::PackedDocuments> train, validation;
};

// Throws Error when there is nothing, and for what cannot be read.
Documents make_documents(const DocumentSources& sources, const data::Tokenizer& tokenizer);

}  // namespace binade::examples
