// Shows what a tokenizer makes of text, trains byte-level BPE vocabularies, and prepares token
// shards.
//
//   tokenize --tokenizer DIR < text                          ids of standard input, on one line
//   tokenize --tokenizer DIR --json-lines                    a JSON string a line → a line of ids
//   tokenize --tokenizer DIR --decode                        a line of ids → a JSON string a line
//   tokenize --tokenizer DIR --save DIR2                     the tokenizer, in another folder
//   tokenize --tokenizer DIR --text PATH... --shards DIR2    token shards that train_gpt reads
//   tokenize --train PATH... --vocabulary 8192 --save DIR    a new vocabulary
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <iterator>
#include <sstream>

#include <binade/core/error.h>
#include <binade/core/json_view.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_trainer.h>
#include <binade/data/text_files.h>
#include <binade/data/token_shards.h>
#include <binade/data/tokenizer.h>

#include "common.h"

using namespace binade;

namespace {

struct Options {
  std::string tokenizer, save, shards;
  std::vector<std::string> train, text, extensions;
  int64_t vocabulary = 8192, shard_tokens = data::ShardWriter::kDefaultTokensPerShard;
  bool json_lines = false, decode = false, no_special = false;
};

std::vector<std::filesystem::path> files_of(const std::vector<std::string>& given,
                                            const Options& o) {
  return data::list_text_files({given.begin(), given.end()}, {.extensions = o.extensions});
}

void train(const Options& o) {
  std::vector<std::string> texts;
  for (const auto& path : files_of(o.train, o)) texts.push_back(data::read_text(path));
  const auto tokenizer = data::train_bpe(texts, {.vocab_size = o.vocabulary});
  tokenizer->save(o.save);
  fmt::print("{} tokens from {} files, saved to {}\n", tokenizer->vocab_size(), texts.size(),
             o.save);
}

void write_shards(const Options& o, const data::Tokenizer& tokenizer) {
  const auto files = files_of(o.text, o);
  data::ShardWriter writer(o.shards, tokenizer.vocab_size(), o.shard_tokens);
  int64_t tokens = 0;
  data::encode_files(tokenizer, files, {.parse_special_tokens = false},
                     [&](std::span<const int32_t> ids) {
                       writer.append(ids);
                       tokens += static_cast<int64_t>(ids.size());
                     });
  const size_t shards = writer.finish().size();
  tokenizer.save(o.shards);  // train_gpt finds it beside the shards
  fmt::print("{} tokens from {} files in {} shard(s), saved to {}\n", tokens, files.size(), shards,
             o.shards);
}

void print_ids(const std::vector<int32_t>& ids) {
  std::cout << fmt::format("{}\n", fmt::join(ids, " "));
}

void decode_lines(const data::Tokenizer& tokenizer) {
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    std::istringstream fields(line);
    const std::vector<int32_t> ids(std::istream_iterator<int32_t>(fields), {});
    check(fields.eof(), "line ", number, ": expected ids with spaces between");
    std::cout << nlohmann::json(utf8_replace_invalid(tokenizer.decode(ids))).dump() << '\n';
  }
}

void encode_lines(const data::Tokenizer& tokenizer, const data::EncodeOptions& encoding) {
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    const std::string where = concat("line ", number);
    const nlohmann::json text = parse_json(line, where);
    print_ids(tokenizer.encode(JsonView(text, where).text(), encoding));
  }
}

void tokenize(const Options& o) {
  check(o.tokenizer.empty() != o.train.empty(), "give either --tokenizer or --train");
  if (!o.train.empty()) return train(o);
  const auto tokenizer = data::load_tokenizer(o.tokenizer);
  if (!o.text.empty()) return write_shards(o, *tokenizer);
  if (!o.save.empty()) return tokenizer->save(o.save);
  if (o.decode) return decode_lines(*tokenizer);
  const data::EncodeOptions encoding = {.parse_special_tokens = !o.no_special};
  if (o.json_lines) return encode_lines(*tokenizer, encoding);
  print_ids(tokenizer->encode(std::string(std::istreambuf_iterator<char>(std::cin), {}), encoding));
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command(
      "Shows what a tokenizer makes of text, trains vocabularies, prepares token shards");
  Options o;
  command.add("--tokenizer", o.tokenizer,
              "Folder, tokenizer.json or .model file, or the word bytes");
  command.add("--json-lines", o.json_lines, "Read one JSON string a line, print ids a line");
  command.add("--decode", o.decode, "Read ids a line, print one JSON string a line");
  command.add("--no-special", o.no_special,
              "Treat special tokens that are written out in the text as plain text");
  const examples::Option text =
      command.add("--text", o.text, "Files and folders to turn into token shards");
  const examples::Option shards =
      command.add("--shards", o.shards, "Folder to write the token shards to");
  command.add("--shard-tokens", o.shard_tokens, "Tokens a shard holds at most").at_least(1);
  const examples::Option train =
      command.add("--train", o.train, "Files and folders to train a BPE on");
  command.add("--extensions", o.extensions,
              "Endings of the files to take from folders; default: all");
  command.add("--vocabulary", o.vocabulary, "Size of the trained vocabulary").range(257, 1 << 20);
  const examples::Option save = command.add("--save", o.save, "Folder to write the tokenizer to");
  text.needs(shards);
  shards.needs(text);
  train.needs(save);
  return examples::run_program(command, argc, argv, [&] { tokenize(o); });
}
