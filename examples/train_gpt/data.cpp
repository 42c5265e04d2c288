#include "data.h"

#include <algorithm>

#include <fmt/core.h>

#include <binade/core/file.h>
#include <binade/heads/language_model/documents.h>

#include "../training/documents.h"
#include "setup.h"

namespace binade::examples {

namespace {

namespace language_model = heads::language_model;

// The tokens of these files and folders, or token shards.
std::shared_ptr<const data::TokenSource> read_tokens(const TrainGptOptions& options,
                                                     const std::vector<std::string>& text,
                                                     const data::Tokenizer& tokenizer) {
  if (are_shards(text)) {
    auto shards = std::make_shared<data::ShardTokens>(data::list_shards(text[0]));
    check(shards->vocab_size() <= tokenizer.vocab_size(), "the token shards in ", text[0],
          " have a vocabulary of ", shards->vocab_size(), ", the tokenizer one of ",
          tokenizer.vocab_size());
    return shards;
  }
  // In sequential order the stream is [BOS] + encode(text), as other programs have it.
  const bool sequential = options.data_order == "sequential";
  const data::EncodeFilesOptions encoding{
      .begin_with_bos = sequential && tokenizer.bos_id().has_value(), .end_with_eos = !sequential};
  return std::make_shared<data::MemoryTokens>(
      data::encode_files(tokenizer, text_files(options, text), encoding), tokenizer.vocab_size());
}

// "<count> tokens, CRC-32C <checksum>": what a resumed run is held to.
std::string checksum_of(const data::TokenSource& tokens) {
  constexpr int64_t kChunk = 1 << 20;
  std::vector<int32_t> chunk;
  uint32_t checksum = 0;
  for (int64_t first = 0; first < tokens.size(); first += kChunk) {
    chunk.resize(static_cast<size_t>(std::min(kChunk, tokens.size() - first)));
    tokens.read(first, chunk);
    checksum = crc32c(chunk.data(), chunk.size() * sizeof(int32_t), checksum);
  }
  return fmt::format("{} tokens, CRC-32C {:#010x}", tokens.size(), checksum);
}

// Windows to train on, and those to validate on (null: none): a share of `tokens`, or
// --validation-text.
struct Samplers {
  std::shared_ptr<const data::WindowSampler> train, validation;
};

Samplers make_samplers(const TrainGptOptions& options,
                       const std::shared_ptr<const data::TokenSource>& tokens,
                       const data::Tokenizer& tokenizer) {
  data::SamplerOptions sampler{.batch_size = options.batch_size,
                               .seq_len = options.seq_len,
                               .order = options.data_order == "sequential"
                                            ? data::DataOrder::kSequential
                                            : data::DataOrder::kShuffled,
                               .seed = options.seed,
                               .validation_fraction = options.validation_fraction};
  const auto windows = [&](std::shared_ptr<const data::TokenSource> source, data::DataSplit split) {
    sampler.split = split;
    return std::make_shared<data::WindowSampler>(std::move(source), sampler);
  };
  if (!options.validation_text.empty()) {
    const auto train = windows(tokens, data::DataSplit::kAll);
    sampler.order = data::DataOrder::kSequential;
    return {train, windows(read_tokens(options, options.validation_text, tokenizer),
                           data::DataSplit::kAll)};
  }
  if (options.validation_fraction == 0) return {windows(tokens, data::DataSplit::kAll), nullptr};
  return {windows(tokens, data::DataSplit::kTrain), windows(tokens, data::DataSplit::kValidation)};
}

class TextWindows : public TrainingData {
 public:
  TextWindows(const TrainGptOptions& options, const data::Tokenizer& tokenizer)
      : options_(options),
        tokens_(read_tokens(options, options.text, tokenizer)),
        samplers_(make_samplers(options, tokens_, tokenizer)) {}

  int64_t vocabulary() const override { return tokens_->vocab_size(); }
  std::string summary() const override {
    return fmt::format("{} tokens, {} windows of {}", tokens_->size(),
                       samplers_.train->window_count(), options_.seq_len);
  }
  std::string fingerprint() const override { return checksum_of(*tokens_); }
  std::function<train::StepData(int64_t)> batches(Device device) const override {
    return language_model::WindowBatches(samplers_.train, options_.accumulation, device);
  }
  train::LossFunction loss(const nn::CausalLm& model, const amp::Preset&) const override {
    return language_model::loss(model);
  }
  std::function<train::Validation()> validation(const nn::CausalLm& model,
                                                const amp::Preset& preset,
                                                train::DataParallel* parallel) const override {
    if (!samplers_.validation) return {};
    return [&model, preset, parallel, windows = samplers_.validation,
            batches = options_.validation_batches] {
      return language_model::validation_loss(model, *windows, preset, batches, parallel);
    };
  }

 private:
  TrainGptOptions options_;
  std::shared_ptr<const data::TokenSource> tokens_;
  Samplers samplers_;
};

class Chats : public TrainingData {
 public:
  Chats(const TrainGptOptions& options, const data::Tokenizer& tokenizer)
      : options_(options), vocabulary_(tokenizer.vocab_size()) {
    check(options.text == TrainGptOptions().text && options.validation_text.empty(),
          "--chats takes the place of --text and --validation-text; leave them out");
    check(options.mtp.empty(), "--mtp learns from --text; finetune_mtp takes --chats");
    documents_ =
        make_documents({.chats = options.chats,
                        .template_folder = !options.chat_template.empty() ? options.chat_template
                                           : !options.init.empty()        ? options.init
                                                                          : options.tokenizer,
                        .skip_bad = options.skip_bad,
                        .text = {},
                        .validation_fraction = options.validation_fraction,
                        .packing = {.batch_size = options.batch_size,
                                    .seq_len = options.seq_len,
                                    .pack = true,
                                    .seed = options.seed}},
                       tokenizer);
    if (options.teacher.empty()) return;
    data::check_same_tokens(tokenizer, *data::load_tokenizer(options.teacher),
                            concat("--teacher ", options.teacher));
    teacher_ = nn::load_hf(options.teacher, {.vocabulary_multiple = kVocabularyMultiple});
  }

  int64_t vocabulary() const override { return vocabulary_; }
  std::string summary() const override {
    const heads::decoding::PackedDocuments& rows = *documents_.train;
    return fmt::format("{} conversations in {} rows of {}, {} labels", rows.document_count(),
                       rows.row_count(), options_.seq_len, rows.reply_tokens());
  }
  std::string fingerprint() const override { return documents_.train->fingerprint(); }
  std::function<train::StepData(int64_t)> batches(Device) const override {
    return language_model::document_batches(documents_.train, options_.accumulation);
  }
  train::LossFunction loss(const nn::CausalLm& model, const amp::Preset& preset) const override {
    if (teacher_) {
      teacher_->set_trainable(false);
      teacher_->eval();
      teacher_->to(model.device());
      preset.apply(*teacher_);
    }
    return language_model::document_loss(model, documents_.train->options(), teacher_);
  }
  // Every rank goes through all of them.
  std::function<train::Validation()> validation(const nn::CausalLm& model,
                                                const amp::Preset& preset,
                                                train::DataParallel* parallel) const override {
    if (!documents_.validation) return {};
    return [&model, preset, parallel, rows = documents_.validation,
            batches = options_.validation_batches] {
      return language_model::validation_loss(model, *rows, preset, batches, parallel);
    };
  }

 private:
  TrainGptOptions options_;
  int64_t vocabulary_;
  Documents documents_;
  std::shared_ptr<nn::CausalLm> teacher_;
};

}  // namespace

std::unique_ptr<TrainingData> prepare_data(const TrainGptOptions& options,
                                           const data::Tokenizer& tokenizer) {
  if (!options.chats.empty()) return std::make_unique<Chats>(options, tokenizer);
  check(options.teacher.empty() && options.chat_template.empty() && !options.skip_bad,
        "--teacher, --chat-template and --skip-bad are for --chats");
  return std::make_unique<TextWindows>(options, tokenizer);
}

}  // namespace binade::examples
