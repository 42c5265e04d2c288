// Shows what a tokenizer makes of text, and trains byte-level BPE vocabularies.
//
//   tokenize --tokenizer DIR < text              ids of standard input, on one line
//   tokenize --tokenizer DIR --json-lines        for every line, a JSON string: a line of ids
//   tokenize --tokenizer DIR --decode            for every line of ids: the text, as a JSON string
//   tokenize --tokenizer DIR --save DIR2         the tokenizer, written to another folder
//   tokenize --train PATH --vocab-size 8192 --save DIR
#include <binade/core/error.h>
#include <binade/data/bpe_trainer.h>
#include <binade/data/text_files.h>
#include <binade/data/tokenizer.h>
#include <binade/data/utf8.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

namespace {

using namespace binade;

struct Options {
  std::string tokenizer, train, save, extensions;
  int64_t vocab_size = 8192;
  bool json_lines = false, decode = false, no_special = false;
};

void print_ids(const std::vector<int32_t>& ids) {
  std::cout << fmt::format("{}\n", fmt::join(ids, " "));
}

void train(const Options& options) {
  data::TextFileOptions files;
  std::istringstream list(options.extensions);
  for (std::string extension; std::getline(list, extension, ',');) {
    files.extensions.push_back(extension);
  }
  std::vector<std::string> texts;
  for (const auto& path : data::list_text_files({options.train}, files)) {
    texts.push_back(data::read_text(path));
  }
  const auto tokenizer = data::train_bpe(texts, {.vocab_size = options.vocab_size});
  tokenizer->save(options.save);
  fmt::print("{} tokens from {} files, saved to {}\n", tokenizer->vocab_size(), texts.size(),
             options.save);
}

void run(const Options& options) {
  if (!options.train.empty()) return train(options);
  const auto tokenizer = data::load_tokenizer(options.tokenizer);
  if (!options.save.empty()) return tokenizer->save(options.save);
  const data::EncodeOptions encoding = {.parse_special_tokens = !options.no_special};
  if (!options.json_lines && !options.decode) {
    const std::string text(std::istreambuf_iterator<char>(std::cin), {});
    return print_ids(tokenizer->encode(text, encoding));
  }
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    if (options.decode) {
      std::istringstream fields(line);
      const std::vector<int32_t> ids(std::istream_iterator<int32_t>(fields), {});
      check(fields.eof(), "line ", number, ": expected ids with spaces between");
      std::cout << nlohmann::json(data::utf8_replace_invalid(tokenizer->decode(ids))).dump()
                << '\n';
      continue;
    }
    const auto text = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    check(text.is_string(), "line ", number, ": expected a JSON string");
    print_ids(tokenizer->encode(text.get<std::string>(), encoding));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Shows what a tokenizer makes of text, and trains byte-level BPE vocabularies.");
  app.option_defaults()->always_capture_default();
  auto* tokenizer = app.add_option("--tokenizer", options.tokenizer,
                                   "folder, tokenizer.json or .model file, or the word bytes");
  app.add_flag("--json-lines", options.json_lines, "read one JSON string a line, print ids a line");
  app.add_flag("--decode", options.decode, "read ids a line, print one JSON string a line");
  app.add_flag("--no-special", options.no_special,
               "treat special tokens that are written out in the text as plain text");
  auto* train = app.add_option("--train", options.train, "text file or folder to train BPE on");
  app.add_option("--extensions", options.extensions,
                 "endings of the files to take from a folder, with commas between (default: all)");
  app.add_option("--vocab-size", options.vocab_size, "tokens of the trained vocabulary");
  app.add_option("--save", options.save, "folder to write the tokenizer to");
  train->needs("--save");
  tokenizer->excludes(train);
  try {
    app.parse(argc, argv);
    check(tokenizer->count() + train->count() == 1, "give --tokenizer or --train; see --help");
    run(options);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::cerr << "tokenize: " << error.what() << '\n';
    return 2;
  }
}
