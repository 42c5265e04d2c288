// Texts as a model of train_bagel knows them: words of the small world, bytes, or the tokens of a
// tokenizer with BAGEL's marks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <binade/data/slot_packer.h>
#include <binade/data/tokenizer.h>

namespace binade::examples {

using Ids = std::vector<int32_t>;

class Texts {
 public:
  static Texts words();
  static Texts bytes();
  // A folder's tokenizer, or a file's. A text begins with <|im_start|> and ends with <|im_end|>, an
  // image with <|vision_start|> and <|vision_end|>. Throws Error where one of them is missing, and
  // as load_tokenizer does.
  static Texts of_tokenizer(const std::filesystem::path& folder);
  // Of a model's folder: those of the tokenizer in it; without one, words or bytes, by the rows of
  // the model's embedding. Throws Error for a tokenizer of more tokens.
  static Texts of_model(const std::filesystem::path& folder, int64_t rows);

  // Throws Error for a word that the small world lacks. Marks that are written out in a text are
  // the characters they are.
  Ids ids(std::string_view text) const;
  // On one line, for a person.
  std::string text(const Ids& ids) const;

  bool are_words() const { return kind_ == Kind::words; }
  int32_t vocabulary() const;  // rows that an embedding needs
  // Puts the ids that texts and images begin and end with into a layout.
  void mark(data::SlotLayout& layout) const;
  // Writes the tokenizer into a model's folder, where there is one.
  void save(const std::filesystem::path& folder) const;

 private:
  enum class Kind : uint8_t { words, bytes, tokens };
  explicit Texts(Kind kind) : kind_(kind) {}

  Kind kind_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  int32_t text_begin_ = 0, text_end_ = 0, image_begin_ = 0, image_end_ = 0;  // of tokens
};

}  // namespace binade::examples
