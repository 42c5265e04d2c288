// Prints the perplexity of a language model on a text.
//
//   evaluate --model DIR --text book.txt
//   evaluate --model DIR --text book.txt --window 1024 --stride 512
#include <fmt/core.h>
#include <unistd.h>

#include <cmath>

#include <binade/core/file.h>
#include <binade/infer/perplexity.h>

#include "model_folder.h"

using namespace binade;

namespace {

struct Options {
  examples::ModelOptions model;
  std::string text;
  infer::PerplexityOptions perplexity;
};

void add_options(examples::CommandLine& command, Options& o) {
  examples::add_model_options(command, o.model);
  command.add("--text", o.text, "The text file to predict").required();
  command
      .add("--window", o.perplexity.window,
           "Tokens that a pass sees; 0: as many as the model has positions")
      .count();
  command
      .add("--stride", o.perplexity.stride,
           "Tokens that a window moves on; smaller ones give every token more context; 0: "
           "the window")
      .count();
  command.add("--batch-size", o.perplexity.batch, "Windows in a pass")
      .range(int64_t{1}, int64_t{1} << 20);
}

void evaluate(const Options& o) {
  const std::string text = read_text_file(o.text);
  const examples::LoadedModel loaded = examples::load_model(o.model);
  const std::vector<int32_t> tokens = examples::encode_text(loaded, text);
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  const infer::Perplexity result =
      infer::perplexity(*loaded.model, tokens, o.perplexity, [&](int64_t done) {
        if (terminal) fmt::print(stderr, "\r{} of {} tokens", done, tokens.size() - 1);
      });
  if (terminal) fmt::print(stderr, "\n");
  // Bits a byte can be compared between models with different vocabularies.
  const double bits = result.loss * static_cast<double>(result.tokens) / std::log(2.0);
  fmt::print("tokens {}\nloss {:.5f}\nperplexity {:.4f}\nbits per byte {:.4f}\n", result.tokens,
             result.loss, result.value(), bits / static_cast<double>(text.size()));
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Prints the perplexity of a language model on a text");
  Options options;
  add_options(command, options);
  return examples::run_program(command, argc, argv, [&] { evaluate(options); });
}
