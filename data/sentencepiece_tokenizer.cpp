#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/data/normalizer.h>
#include <binade/data/sentencepiece_tokenizer.h>
#include <binade/data/token_text.h>
#include <sentencepiece_processor.h>

#include <limits>

namespace binade::data {
namespace {

constexpr int64_t kMaxModelBytes = int64_t{1} << 28;
constexpr const char* kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr const char* kUnknown = " \xE2\x81\x87 ";  // what the library shows: U+2047

// Where a text starts, SentencePiece drops the space that it put in front when it encoded. Whether
// a model does so shows in what it makes of a token that starts with one.
DecoderSpec decoder_of(const sentencepiece::SentencePieceProcessor& processor) {
  DecoderSpec decoder;
  decoder.replacements = {{kSpaceMark, " "}};
  decoder.byte_fallback = true;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const std::string& piece = processor.IdToPiece(id);
    if (!piece.starts_with(kSpaceMark)) continue;
    std::string text;
    const bool decoded = processor.Decode(std::vector<int>{id}, &text).ok();
    if (decoded && text != replace_all(piece, kSpaceMark, " ")) decoder.strip_start.assign(1, ' ');
    break;
  }
  return decoder;
}

}  // namespace

struct SentencePieceTokenizer::Parts {
  std::string serialized;
  sentencepiece::SentencePieceProcessor processor;
  std::unique_ptr<TokenText> text;
};

SentencePieceTokenizer::SentencePieceTokenizer(const std::filesystem::path& model_file)
    : parts_(new Parts) {
  const std::string name = model_file.string();
  parts_->serialized = read_text_file(model_file, kMaxModelBytes);
  auto& processor = parts_->processor;
  const auto status = processor.LoadFromSerializedProto(parts_->serialized);
  check(status.ok(), name, " is not a usable SentencePiece model: ", status.message());
  check(processor.GetPieceSize() > 0, name, " has no pieces");
  parts_->text = std::make_unique<TokenText>(decoder_of(processor));
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (processor.IsControl(id)) continue;  // no text
    parts_->text->add(id, processor.IsUnknown(id) ? kUnknown : processor.IdToPiece(id));
  }
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text,
                                                    const EncodeOptions& options) const {
  check(text.size() < std::numeric_limits<int32_t>::max(), "a text of ", text.size(),
        " bytes is too long to encode at once; the limit is 2^31 - 1");
  std::vector<int32_t> ids;
  const auto status = parts_->processor.Encode(absl::string_view(text.data(), text.size()), &ids);
  check(status.ok(), "SentencePiece cannot encode a text: ", status.message());
  if (options.add_special_tokens && bos_id()) ids.insert(ids.begin(), *bos_id());
  return ids;
}

std::string_view SentencePieceTokenizer::token_bytes(int32_t id, bool at_start) const {
  check(id >= 0 && id < vocab_size(), "token id ", id, " is out of range for a vocabulary of ",
        vocab_size());
  return parts_->text->get(id, at_start);
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && parts_->processor.IsControl(id);
}

int32_t SentencePieceTokenizer::vocab_size() const {
  return parts_->processor.GetPieceSize();
}

std::optional<int32_t> SentencePieceTokenizer::bos_id() const {
  const int id = parts_->processor.bos_id();
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

std::optional<int32_t> SentencePieceTokenizer::eos_id() const {
  const int id = parts_->processor.eos_id();
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

void SentencePieceTokenizer::write_files(const std::filesystem::path& folder) const {
  write_text_file(folder / "tokenizer.model", parts_->serialized);
}

}  // namespace binade::data
