// A whole training run on one page: a small GPT that learns to write a text, character by
// character, in mixed precision with loss scaling.
//
//   char_gpt [TEXT [PRESET]]     without them: a text that compares numbers, and fp16
// The next rung is gan.cpp.
#include <iostream>
#include <set>

#include <binade/binade.h>

using namespace binade;

constexpr int64_t kContext = 64, kDim = 64, kHeads = 4, kLayers = 2, kBatch = 16, kSteps = 300;

class Block : public nn::Module {
 public:
  Block()
      : norm1_(add<nn::LayerNorm>("norm1", kDim)),
        norm2_(add<nn::LayerNorm>("norm2", kDim)),
        qkv_(add<nn::Linear>("qkv", kDim, 3 * kDim)),
        out_(add<nn::Linear>("out", kDim, kDim)),
        mlp_(add<nn::Mlp>("mlp", kDim, 4 * kDim)) {}

  Tensor forward(const Tensor& x) const {  // (B, T, kDim) → (B, T, kDim)
    const Tensor qkv = qkv_->forward(norm1_->forward(x));
    const Tensor y = x + out_->forward(packed_attention(qkv, kHeads, kHeads, {.causal = true}));
    return y + mlp_->forward(norm2_->forward(y));
  }

 private:
  std::shared_ptr<nn::LayerNorm> norm1_, norm2_;
  std::shared_ptr<nn::Linear> qkv_, out_;
  std::shared_ptr<nn::Mlp> mlp_;
};

class Gpt : public nn::Module {
 public:
  explicit Gpt(int64_t vocabulary)
      : characters_(add<nn::Embedding>("characters", vocabulary, kDim, nn::init::normal(0.02))),
        positions_(add<nn::Embedding>("positions", kContext, kDim, nn::init::normal(0.02))) {
    for (int64_t i = 0; i < kLayers; ++i) blocks_.push_back(add<Block>(concat("block", i)));
    norm_ = add<nn::LayerNorm>("norm", kDim);
    head_ = add<nn::Linear>("head", kDim, vocabulary, /*bias=*/false);
  }

  Tensor forward(const Tensor& ids) const {  // (B, T) → logits (B, T, vocabulary)
    const Tensor places = arange(ids.size(1), DType::i64, ids.device());
    Tensor x = characters_->forward(ids) + positions_->forward(places);
    for (const auto& block : blocks_) x = block->forward(x);
    return head_->forward(norm_->forward(x));
  }

 private:
  std::shared_ptr<nn::Embedding> characters_, positions_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<nn::LayerNorm> norm_;
  std::shared_ptr<nn::Linear> head_;
};

// "three is less than eight.\n" and the like.
std::string sentences() {
  const char* const words[] = {"zero", "one", "two",   "three", "four",
                               "five", "six", "seven", "eight", "nine"};
  std::string text;
  for (const int64_t pair : randint(0, 100, {4000}).to_vector<int64_t>()) {
    const int64_t a = pair / 10, b = pair % 10;
    const char* const relation = a < b ? " is less than " : a > b ? " is more than " : " is ";
    text += concat(words[a], relation, words[b], ".\n");
  }
  return text;
}

void run(const std::string& text, const amp::Preset& preset, Device device) {
  const std::set<char> letters(text.begin(), text.end());
  const std::string alphabet(letters.begin(), letters.end());
  std::vector<int64_t> ids;
  for (const char letter : text) ids.push_back(static_cast<int64_t>(alphabet.find(letter)));
  const auto length = static_cast<int64_t>(ids.size());
  check(length > kContext + 1, "the text needs more than ", kContext + 1, " characters");
  const Tensor data = Tensor::from(ids, {length}, device);

  Gpt gpt(static_cast<int64_t>(alphabet.size()));
  gpt.to(device);
  preset.apply(gpt);  // half parameters with f32 masters, before the optimizer takes them
  optim::AdamW optimizer(optim::split_by_decay(gpt, /*weight_decay=*/0.1));
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));
  const optim::Schedule schedule{.learning_rate = 3e-3, .warmup = 30, .total = kSteps};
  std::cout << gpt.parameter_count() << " parameters, " << preset.name << " on " << device << '\n';

  for (int64_t step = 0; step < kSteps; ++step) {
    RandomState::current().begin_step(/*seed=*/1, static_cast<uint64_t>(step));
    const Tensor places = randint(0, length - kContext, {kBatch, 1}, device) +
                          arange(kContext, DType::i64, device);  // (B, T)
    const Tensor inputs = index(data, {places}), targets = index(data, {places + 1});

    optimizer.zero_grad();
    optimizer.set_learning_rate(schedule.at(step));
    const amp::Autocast scope(preset);  // operations choose their precision by class
    const Tensor loss = cross_entropy(gpt.forward(inputs), targets);
    scaler.scale(loss).backward();
    scaler.clip_norm(1.0);
    scaler.step(optimizer);  // skipped, as a whole, when a gradient overflowed
    scaler.update();
    if (step % 50 == 49)
      std::cout << "step " << step + 1 << ": loss " << loss.item() << ", scale "
                << scaler.scale_scalar().item() << '\n';
  }

  // A sample: the next character is drawn from what the model expects behind the last kContext.
  const NoGrad off;
  const amp::Autocast scope(preset);
  Tensor written = reshape(slice(data, 0, 0, 1), {1, 1});
  for (int i = 0; i < 200; ++i) {
    const int64_t first = std::max<int64_t>(0, written.size(1) - kContext);
    const Tensor logits = gpt.forward(slice(written, 1, first));
    written = cat({written, multinomial(softmax(select(logits, 1, -1)), 1)}, 1);
  }
  for (const uint8_t id : written.to_vector<uint8_t>()) std::cout << alphabet[id];
  std::cout << '\n';
}

int main(int argc, char** argv) try {
  RandomState::current().set_seed(1);  // of the initial weights
  const Device device = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  run(argc > 1 ? data::read_text(argv[1]) : sentences(),
      amp::Preset::parse(argc > 2 ? argv[2] : "fp16"), device);
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
