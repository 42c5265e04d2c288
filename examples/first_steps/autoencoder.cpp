// Pictures through a bottleneck: a convolutional network squeezes 28 × 28 pixels into 16 numbers
// and draws them again. What comes in and what comes out ends up in autoencoder.pgm.
//
//   autoencoder [IMAGES [PRESET]]     an IDX file (MNIST, Fashion-MNIST), gzipped or not;
//                                     without one it draws discs and frames of its own
//
// From here on: docs/training.md, and train_fashion_mnist.cpp with options and a validation set.
#include <fstream>
#include <iostream>

#include <binade/binade.h>

using namespace binade;

constexpr int64_t kSize = 28, kCode = 16, kBatch = 32, kSteps = 200, kShown = 10;

class Autoencoder : public nn::Module {
 public:
  Autoencoder()
      : down1_(add<nn::Conv2d>("down1", 1, 16, 3, kHalf)),
        down2_(add<nn::Conv2d>("down2", 16, 32, 3, kHalf)),
        code_(add<nn::Linear>("code", 32 * 7 * 7, kCode)),
        decode_(add<nn::Linear>("decode", kCode, 32 * 7 * 7)),
        up1_(add<nn::Conv2d>("up1", 32, 16, 3, kSame)),
        up2_(add<nn::Conv2d>("up2", 16, 1, 3, kSame)) {}

  Tensor encode(const Tensor& images) const {  // (N, 1, 28, 28) → (N, kCode)
    return code_->forward(flatten(relu(down2_->forward(relu(down1_->forward(images)))), 1));
  }
  Tensor decode(const Tensor& code) const {  // (N, kCode) → logits of the pixels, (N, 1, 28, 28)
    const Tensor x = reshape(relu(decode_->forward(code)), {-1, 32, 7, 7});
    const Tensor y = relu(up1_->forward(interpolate(x, {14, 14})));
    return up2_->forward(interpolate(y, {28, 28}));
  }
  Tensor forward(const Tensor& images) const { return decode(encode(images)); }

 private:
  static constexpr Conv2dOptions kHalf{.stride = {2, 2}, .padding = {1, 1}};
  static constexpr Conv2dOptions kSame{.padding = {1, 1}};
  std::shared_ptr<nn::Conv2d> down1_, down2_;
  std::shared_ptr<nn::Linear> code_, decode_;
  std::shared_ptr<nn::Conv2d> up1_, up2_;
};

// (N, 1, 28, 28) in [0, 1]: discs and square frames at random places.
Tensor drawn_shapes(int64_t count) {
  const Shape each = {count, 1, 1};
  const Tensor along = arange(kSize, DType::f32);
  const Tensor dx = abs(along - (8.0 + 12.0 * rand(each)));                // (N, 1, 28)
  const Tensor dy = abs(unsqueeze(along, 1) - (8.0 + 12.0 * rand(each)));  // (N, 28, 1)
  const Tensor radius = 3.0 + 5.0 * rand(each);
  const Tensor disc = clamp(radius - sqrt(square(dx) + square(dy)), 0, 1);
  const Tensor frame = clamp(1.5 - abs(radius - maximum(dx, dy)), 0, 1);
  return unsqueeze(where(less(rand(each), Tensor::scalar(0.5)), disc, frame), 1);
}

Tensor read_images(const std::filesystem::path& path) {
  const Array pixels = data::read_idx(path);
  check(pixels.dims() == 3 && pixels.size(1) == kSize && pixels.size(2) == kSize, path.string(),
        ": expected images of 28 × 28 pixels, got an array of shape ", pixels.shape());
  return unsqueeze(Tensor(pixels.to(DType::f32)) / 255.0, 1);
}

// Two rows of pictures as one image in PGM, which most viewers open.
void write_pgm(const std::filesystem::path& path, const Tensor& above, const Tensor& below) {
  const Tensor grid = stack({above, below}, 0);  // (2, N, 1, 28, 28)
  const Tensor image = reshape(permute(grid, {0, 3, 1, 2, 4}), {2 * kSize, -1});  // rows of pixels
  const auto bytes = round(255.0 * clamp(image, 0, 1)).to_vector<uint8_t>();
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << image.size(1) << ' ' << image.size(0) << "\n255\n";
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  check(file.good(), "cannot write ", path.string());
}

void run(const Tensor& images, const amp::Preset& preset, Device device) {
  Autoencoder net;
  net.to(device);
  preset.apply(net);
  optim::AdamW optimizer(net, {.learning_rate = 2e-3});
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));

  for (int64_t step = 0; step < kSteps; ++step) {
    RandomState::current().begin_step(/*seed=*/1, static_cast<uint64_t>(step));
    const Tensor batch = index_select(images, 0, randint(0, images.size(0), {kBatch}, device));
    optimizer.zero_grad();
    const amp::Autocast scope(preset);
    const Tensor loss = bce_with_logits_loss(net.forward(batch), batch);
    scaler.scale(loss).backward();
    scaler.step(optimizer);
    scaler.update();
    if (step % 50 == 49) std::cout << "step " << step + 1 << ": loss " << loss.item() << '\n';
  }

  const NoGrad off;
  const amp::Autocast scope(preset);
  const Tensor shown = slice(images, 0, 0, kShown);
  const Tensor drawn = to(sigmoid(net.forward(shown)), DType::f32);
  const Tensor mean_picture = expand(mean(images, {0}, /*keep_dims=*/true), shown.shape());
  std::cout << "mean error of a pixel: " << l1_loss(drawn, shown).item()
            << ", with the mean picture " << l1_loss(mean_picture, shown).item() << '\n';
  write_pgm("autoencoder.pgm", shown, drawn);
}

int main(int argc, char** argv) try {
  RandomState::current().set_seed(1);  // of the initial weights and of drawn shapes
  const Device device = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  const Tensor images = argc > 1 ? read_images(argv[1]) : drawn_shapes(4000);
  run(to(images, device), amp::Preset::parse(argc > 2 ? argv[2] : "fp16"), device);
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
