// Brings decoding heads from one engine's layout into another's, and checks what was written.
//
//   export_heads --model DIR --from heads --layout vllm --to heads-vllm
//   export_heads --model DIR --from heads              shows and checks what is there
#include <binade/binade.h>

#include "export_heads/kinds.h"
#include "model_folder.h"

using namespace binade;

namespace {

struct Options {
  std::string model, tokenizer, from, to, layout, dtype = "same", base_name;
};

void add_options(examples::CommandLine& command, Options& o) {
  std::string layouts;
  for (const examples::HeadKind& kind : examples::head_kinds())
    for (const examples::HeadLayout& layout : kind.layouts)
      layouts += (layouts.empty() ? "" : "; ") + layout.name + " (" + kind.name + ": " +
                 layout.read_by + ")";
  command.add("--model", o.model, "The Hugging Face folder of the language model").required();
  command.add("--from", o.from, "Folder of the heads, in any layout").required();
  command.add("--to", o.to, "Folder to write; without it, the heads are read and shown");
  command.add("--layout", o.layout, "Of --to: " + layouts);
  command.add("--dtype", o.dtype, "Of the written weights: same, fp16, bf16 or fp32")
      .one_of({"same", "fp16", "bf16", "fp32"});
  command.add("--base-name", o.base_name,
              "Name of the language model for the engine; default: --model");
}

const examples::HeadKind& kind_of(const std::string& folder) {
  std::string known;
  for (const examples::HeadKind& kind : examples::head_kinds()) {
    if (!kind.layout_of(folder).empty()) return kind;
    known += concat(known.empty() ? "" : ", ", kind.name);
  }
  fail("--from ", folder, " holds no decoding heads of a kind that is known: ", known);
}

// The tensors of a folder's files.
std::map<std::string, Array> tensors_of(const std::filesystem::path& folder) {
  std::map<std::string, Array> tensors;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(entry.path());
    for (const std::string& name : file.names()) tensors.emplace(name, file.get(name));
  }
  check(!tensors.empty(), folder.string(), " has no .safetensors file");
  return tensors;
}

void print_tensors(const std::map<std::string, Array>& tensors) {
  size_t width = 6;
  int64_t bytes = 0;
  for (const auto& [name, values] : tensors) width = std::max(width, name.size());
  fmt::print("{:<{}}  {:<14}  {}\n", "tensor", width, "shape", "dtype");
  for (const auto& [name, values] : tensors) {
    fmt::print("{:<{}}  {:<14}  {}\n", name, width, concat(values.shape()), concat(values.dtype()));
    bytes += values.bytes();
  }
  fmt::print("{} tensors of {:.1f} MiB\n", tensors.size(), static_cast<double>(bytes) / 1048576);
}

// Tokens from all over the vocabulary.
Tensor some_tokens(const nn::CausalLm& model) {
  const int64_t count = std::min<int64_t>(32, model.config().max_positions);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>((i * 7919 + 1) % model.config().vocab_size));
  return Tensor::from(ids, {1, count}, model.device());
}

// Whether two modules' parameters have the same bits, where the first one's are rounded to `dtype`.
// Throws Error that names those that differ.
bool check_parameters(const nn::Module& before, const nn::Module& after, DType dtype) {
  const nn::StateDict state = after.state();
  bool exact = true;
  for (const auto& [name, values] : before.state()) {
    const std::vector<float> full = values.to(DType::f32).to_vector<float>(),
                             rounded = values.to(dtype).to(DType::f32).to_vector<float>();
    const auto found = state.find(name);
    check(found != state.end() && found->second.shape() == values.shape() &&
              found->second.to(DType::f32).to_vector<float>() == rounded,
          "what was written does not read back: ", name, " is another one");
    exact = exact && full == rounded;
  }
  check(state.size() == before.state().size(), "what was written reads back with more parameters");
  return exact;
}

// Logits before and after: equal bits, or the largest difference that rounding the weights makes.
void compare_logits(const std::vector<Tensor>& before, const std::vector<Tensor>& after,
                    bool exact) {
  check(before.size() == after.size(), "what was written has ", after.size(), " heads, not ",
        before.size());
  for (size_t k = 0; k < before.size(); ++k) {
    const std::vector<float> a = before[k].to_vector<float>(), b = after[k].to_vector<float>();
    double largest = 0, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(a[i])));
      difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    }
    check(!exact || a == b, "the logits of head ", k + 1, " differ although no weight was rounded");
    const auto best = [](const Tensor& logits) { return argmax(logits, -1).to_vector<int64_t>(); };
    const std::vector<int64_t> best_a = best(before[k]), best_b = best(after[k]);
    size_t same = 0;
    for (size_t t = 0; t < best_a.size(); ++t) same += best_a[t] == best_b[t] ? 1 : 0;
    fmt::print("head {}: logits of up to {:.2f} {}, {}/{} likeliest tokens the same\n", k + 1,
               largest,
               a == b ? std::string("equal bit by bit")
                      : fmt::format("differ by up to {:.2e}", difference),
               same, best_a.size());
  }
}

DType dtype_of(const Options& o, const std::map<std::string, Array>& source) {
  if (o.dtype == "fp16") return DType::f16;
  if (o.dtype == "bf16") return DType::bf16;
  if (o.dtype == "fp32") return DType::f32;
  // Some hold ids, too.
  for (const auto& [name, values] : source)
    if (is_floating(values.dtype())) return values.dtype();
  fail("--from ", o.from, " has no weights");
}

// Before anything is read.
void check_target(const Options& o, const examples::HeadKind& kind) {
  namespace fs = std::filesystem;
  std::string layouts;
  bool known = false;
  for (const examples::HeadLayout& layout : kind.layouts) {
    known = known || layout.name == o.layout;
    layouts += concat(layouts.empty() ? "" : ", ", layout.name);
  }
  check(known, "--layout ", o.layout, " is none of ", kind.name, " heads: ", layouts);
  check(!fs::exists(o.to) || fs::is_empty(o.to), "--to ", o.to,
        " is there already and not empty; choose another folder");
}

void export_heads(const Options& o) {
  namespace fs = std::filesystem;
  check(fs::exists(o.from), "--from ", o.from, " does not exist");
  check(o.to.empty() == o.layout.empty(), "give --to and --layout together");
  const examples::HeadKind& kind = kind_of(o.from);
  if (!o.to.empty()) check_target(o, kind);
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(o.model);
  model->eval();
  const NoGrad off;
  const Tensor ids = some_tokens(*model);
  const auto heads = kind.read(o.from, model);
  const std::vector<Tensor> logits = heads->logits(ids);
  const std::map<std::string, Array> source = tensors_of(o.from);
  fmt::print("{}: {} heads in the layout {}\n", o.from, kind.name, kind.layout_of(o.from));
  if (o.to.empty()) {
    print_tensors(source);
    return;
  }

  const DType dtype = dtype_of(o, source);
  heads->write(o.to, {.layout = o.layout,
                      .base_name = o.base_name.empty() ? o.model : o.base_name,
                      .dtype = dtype});
  const auto again = kind.read(o.to, model);
  fmt::print("{}: layout {}, {}\n", o.to, kind.layout_of(o.to), concat(dtype));
  print_tensors(tensors_of(o.to));
  const bool exact = check_parameters(heads->module(), again->module(), dtype);
  fmt::print("read back: every weight is {}\n",
             exact ? "the one that was read"
                   : fmt::format("the one that was read, rounded to {}", concat(dtype)));
  compare_logits(logits, again->logits(ids), exact);
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Brings decoding heads from one engine's layout into another's");
  Options options;
  add_options(command, options);
  return examples::run_program(command, argc, argv, [&] { export_heads(options); });
}
