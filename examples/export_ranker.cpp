// Writes a saved ranker in forms that other programs run, with its scaling: they take raw features.
//
//   export_ranker --ranker ranker/ --onnx ranker.onnx
//   export_ranker --ranker ranker/ --c-header ranker.h --name web_ranker
#include <binade/binade.h>
#include <binade/heads/rank/c_header.h>
#include <binade/heads/rank/onnx.h>

#include "common.h"
#include "output_files.h"

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options {
  std::string ranker, onnx, c_header, name = "ranker";
};

void export_ranker(const Options& o) {
  check(!o.onnx.empty() || !o.c_header.empty(), "give --onnx, --c-header or both");
  check_outputs({{"--onnx", o.onnx}, {"--c-header", o.c_header}}, rank::ranker_files(o.ranker));
  const rank::SavedRanker saved = rank::load_ranker(o.ranker);
  // Both are made before either is written.
  const std::string onnx = o.onnx.empty() ? "" : rank::to_onnx(saved);
  const std::string header = o.c_header.empty() ? "" : rank::to_c_header(saved, o.name);
  if (!o.onnx.empty()) {
    write_text_file(o.onnx, onnx);
    say("wrote {}: features (documents, {}) to scores (documents), documents {}\n", o.onnx,
        saved.ranker->config().features,
        rank::needs_list(saved) ? "of one list" : "each by itself");
  }
  if (!o.c_header.empty()) {
    write_text_file(o.c_header, header);
    say("wrote {}: float {}_score(const float* features), of {} features\n", o.c_header, o.name,
        saved.ranker->config().features);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine command("Writes a saved ranker as an ONNX model or as a C header");
  Options o;
  const OptionGroup files{command, "Files"};
  files.add("--ranker", o.ranker, "Folder of a ranker, as train_ranker --save writes it")
      .required();
  files.add("--onnx", o.onnx, "Write an ONNX model of opset 17 to this file");
  files.add("--c-header", o.c_header, "Write a header of C99 to this file: linear and mlp rankers");
  files.add("--name", o.name, "What names in the header begin with");
  return run_program(command, argc, argv, [&] { export_ranker(o); });
}
