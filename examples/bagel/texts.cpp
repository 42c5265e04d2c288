#include "texts.h"

#include <binade/core/error.h>
#include <binade/data/tokenizer_files.h>

#include "../common.h"
#include "world.h"

namespace binade::examples {

namespace {

constexpr int32_t kFirstByte = 5, kByteVocabulary = 320;  // behind the ids of SlotLayout

Ids byte_ids(std::string_view text) {
  Ids ids;
  for (const char byte : text) ids.push_back(kFirstByte + static_cast<unsigned char>(byte));
  return ids;
}

std::string bytes_of(const Ids& ids) {
  std::string text;
  for (const int32_t id : ids)
    if (id >= kFirstByte && id < kFirstByte + 256) text += static_cast<char>(id - kFirstByte);
  return text;
}

// The id of a mark that the vocabulary spells so.
int32_t mark_of(const data::Tokenizer& tokenizer, const std::filesystem::path& folder,
                const std::string& mark) {
  const Ids ids = tokenizer.encode(mark);
  check(ids.size() == 1 && tokenizer.is_special(ids[0]), "the tokenizer in ", folder.string(),
        " has no special token ", mark,
        "; it takes those that begin and end a text and an image: <|im_start|>, <|im_end|>, "
        "<|vision_start|>, <|vision_end|>");
  return ids[0];
}

}  // namespace

Texts Texts::words() {
  return Texts(Kind::words);
}
Texts Texts::bytes() {
  return Texts(Kind::bytes);
}

Texts Texts::of_tokenizer(const std::filesystem::path& folder) {
  Texts texts(Kind::tokens);
  texts.tokenizer_ = data::load_tokenizer(folder);
  const auto mark = [&](const char* name) { return mark_of(*texts.tokenizer_, folder, name); };
  texts.text_begin_ = mark("<|im_start|>");
  texts.text_end_ = mark("<|im_end|>");
  texts.image_begin_ = mark("<|vision_start|>");
  texts.image_end_ = mark("<|vision_end|>");
  return texts;
}

Texts Texts::of_model(const std::filesystem::path& folder, int64_t rows) {
  if (!data::has_tokenizer(folder)) return rows == kVocabulary ? words() : bytes();
  const Texts texts = of_tokenizer(folder);
  check(texts.vocabulary() <= rows, "the tokenizer in ", folder.string(), " has ",
        texts.vocabulary(), " tokens, the model an embedding of ", rows);
  return texts;
}

Ids Texts::ids(std::string_view text) const {
  if (kind_ == Kind::words) return ids_of(text);
  if (kind_ == Kind::bytes) return byte_ids(text);
  return tokenizer_->encode(text, {.parse_special_tokens = false});
}

std::string Texts::text(const Ids& ids) const {
  if (kind_ == Kind::words) return words_of(ids);
  if (kind_ == Kind::bytes) return one_line(bytes_of(ids));
  Ids known = ids;  // an embedding may have rows that stand for nothing
  std::erase_if(known, [&](int32_t id) { return id < 0 || id >= vocabulary(); });
  return one_line(tokenizer_->decode(known));
}

int32_t Texts::vocabulary() const {
  return kind_ == Kind::words   ? kVocabulary
         : kind_ == Kind::bytes ? kByteVocabulary
                                : tokenizer_->vocab_size();
}

void Texts::mark(data::SlotLayout& layout) const {
  if (kind_ != Kind::tokens) return;  // SlotLayout's own
  layout.text_begin = text_begin_;
  layout.text_end = text_end_;
  layout.image_begin = image_begin_;
  layout.image_end = image_end_;
}

void Texts::save(const std::filesystem::path& folder) const {
  if (tokenizer_) tokenizer_->save(folder);
}

}  // namespace binade::examples
