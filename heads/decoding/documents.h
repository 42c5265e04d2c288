// What decoding heads are trained on: documents of tokens, with a mark on those the model itself
// wrote, packed into rows of one length.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <binade/core/array.h>
#include <binade/data/chat_template.h>
#include <binade/data/tokenizer.h>
#include <binade/nn/sequence.h>
#include <binade/train/trainer.h>

namespace binade::heads::decoding {

struct Document {
  std::vector<int32_t> ids;
  std::vector<bool> reply;  // whether the model wrote this token, and so it counts as a label

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

// A conversation as the template spells it; the assistant's text, with the token that ends a turn,
// is the reply. Where the tokenizer's tokens do not give back the bytes of the text (SentencePiece
// after a special token), each part is encoded by itself.
Document encode_chat(const data::Tokenizer& tokenizer, const data::ChatTemplate& chat_template,
                     std::span<const data::Message> messages);
// Tokens of which all but the first are the model's.
Document whole_document(std::vector<int32_t> ids);

struct PackingOptions {
  int64_t batch_size = 8;  // rows of a step
  int64_t seq_len = 512;   // T: tokens of a row
  // Several documents a row, as many as fit (first fit, longest first); false: one a row, which
  // needs no mask.
  bool pack = true;
  uint64_t seed = 0;  // of the order of rows, another one every epoch
};

// Documents laid out in rows of T tokens. What of a document is longer than T is cut off and
// counted.
class PackedDocuments {
 public:
  // Throws Error for options out of range, for documents without tokens or whose marks do not match
  // them, and when no token counts as a label.
  PackedDocuments(std::vector<Document> documents, const PackingOptions& options);

  const PackingOptions& options() const { return options_; }
  int64_t row_count() const { return static_cast<int64_t>(rows_.size()); }
  int64_t steps_per_epoch() const;  // the last may begin the next epoch
  int64_t document_count() const { return static_cast<int64_t>(documents_.size()); }
  int64_t reply_tokens() const { return reply_tokens_; }  // that count as labels
  int64_t cut_documents() const { return cut_; }

  // Batch number `index`, a pure function of it. Each array is (B, T) i32:
  //   ids        0 where there is no document
  //   labels     the next token where the model wrote it, otherwise -100
  //   documents  the document's number in the row; -1 where there is none
  //   positions  from 0 in every document
  train::Batch batch(int64_t index) const;
  // Which rows batch() takes, (B).
  std::vector<int64_t> rows_of(int64_t index) const;
  // Rows first .. first + batch_size - 1 in their own order, empty ones behind the last.
  train::Batch rows_from(int64_t first) const;
  // "<documents> documents, <tokens> tokens, CRC-32C …": what a resumed run is held to.
  std::string fingerprint() const;

 private:
  train::Batch make(const std::vector<int64_t>& rows) const;

  std::vector<Document> documents_;
  PackingOptions options_;
  std::vector<std::vector<int64_t>> rows_;  // numbers of documents
  int64_t reply_tokens_ = 0, cut_ = 0;
};

// Labels `shift` positions further that are in the same document: how many there are in a batch.
int64_t count_labels(const train::Batch& batch, int64_t shift);

// Where the tokens of a packed batch stand and what they may look at: positions by document, and a
// mask (B, 1, T, T) that keeps documents apart. With one document a row (`packed` false) the causal
// default does.
nn::Sequence sequence_of(const train::Named<Tensor>& batch, bool packed);

}  // namespace binade::heads::decoding
