#include "documents.h"

#include <algorithm>
#include <cmath>

#include <binade/data/permutation.h>
#include <binade/data/text_files.h>
#include <binade/data/token_text.h>
#include <binade/heads/decoding/dialogue.h>

#include "../common.h"

namespace binade::examples {

namespace {

std::vector<heads::decoding::Document> read_documents(const DocumentSources& from,
                                                      const data::Tokenizer& tokenizer) {
  std::vector<heads::decoding::Document> documents;
  heads::decoding::ConversationEncoder chats(tokenizer, from.template_folder);
  for (const std::string& file : from.chats)
    data::for_each_conversation(file, {.skip_bad = from.skip_bad}, [&](const auto& conversation) {
      documents.push_back(chats.encode(conversation));
    });
  if (chats.foreign() > 0)
    say("{} conversations hold tokens of another vocabulary; their text is encoded\n",
        chats.foreign());
  // Long texts are cut into windows, each a document.
  const std::vector<int32_t> ids =
      from.text.empty()
          ? std::vector<int32_t>()
          : data::encode_files(tokenizer,
                               data::list_text_files({from.text.begin(), from.text.end()}, {}),
                               {.end_with_eos = true});
  const auto length = static_cast<size_t>(from.packing.seq_len);
  for (size_t first = 0; first < ids.size(); first += length) {
    const size_t end = std::min(ids.size(), first + length);
    documents.push_back(heads::decoding::whole_document(
        {ids.begin() + static_cast<int64_t>(first), ids.begin() + static_cast<int64_t>(end)}));
  }
  check(!documents.empty(), "there is nothing to train on; give --chats or --text");
  return documents;
}

}  // namespace

// The last documents of a shuffled order are for validation.
Documents make_documents(const DocumentSources& from, const data::Tokenizer& tokenizer) {
  std::vector<heads::decoding::Document> all = read_documents(from, tokenizer), train, validation;
  const auto count = static_cast<int64_t>(all.size());
  auto kept =
      static_cast<int64_t>(std::lround(from.validation_fraction * static_cast<double>(count)));
  // One document alone is trained on.
  if (from.validation_fraction > 0) kept = std::min(std::max<int64_t>(kept, 1), count - 1);
  const data::Permutation order(count, from.packing.seed, /*stream=*/1);
  for (int64_t i = 0; i < count; ++i)
    (i < count - kept ? train : validation)
        .push_back(std::move(all[static_cast<size_t>(order(i))]));
  const auto packed = [&](std::vector<heads::decoding::Document> documents) {
    return std::make_shared<const heads::decoding::PackedDocuments>(std::move(documents),
                                                                    from.packing);
  };
  return {packed(std::move(train)), validation.empty() ? nullptr : packed(std::move(validation))};
}

}  // namespace binade::examples
