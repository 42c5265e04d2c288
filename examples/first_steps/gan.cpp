// Two networks against each other, two optimizers, one loss scaler: a generator learns to draw
// points from eight small clouds around a circle (Goodfellow et al. 2014).
//
//   gan [PRESET]                      fp16 (the default), bf16, fp32, …
//
// The next rung is autoencoder.cpp.
#include <cmath>
#include <iostream>
#include <numbers>

#include <binade/binade.h>

using namespace binade;

constexpr int64_t kNoise = 8, kHidden = 128, kBatch = 256, kClouds = 8, kSteps = 1000;
constexpr double kRadius = 2, kDeviation = 0.1;

struct Mlp : nn::Module {
  Mlp(int64_t inputs, int64_t outputs)
      : first(add<nn::Linear>("first", inputs, kHidden)),
        second(add<nn::Linear>("second", kHidden, kHidden)),
        last(add<nn::Linear>("last", kHidden, outputs)) {}

  Tensor forward(const Tensor& x) const {  // (N, inputs) → (N, outputs)
    return last->forward(leaky_relu(second->forward(leaky_relu(first->forward(x), 0.2)), 0.2));
  }

  std::shared_ptr<nn::Linear> first, second, last;
};

Tensor centres(Device device) {  // (kClouds, 2)
  const double turn = 2 * std::numbers::pi / kClouds;
  const Tensor angle = arange(kClouds, DType::f32, device) * turn;
  return kRadius * stack({cos(angle), sin(angle)}, 1);
}

Tensor real_points(Device device) {  // (kBatch, 2)
  const Tensor cloud = randint(0, kClouds, {kBatch}, device);
  return index_select(centres(device), 0, cloud) + kDeviation * randn({kBatch, 2}, device);
}

// Whether the discriminator's logits call the points real (1) or made (0).
Tensor judged(const Tensor& logits, double real) {
  return bce_with_logits_loss(logits,
                              Tensor::full(logits.shape(), real, DType::f32, logits.device()));
}

// How many of the points (N, 2) lie within four deviations of a centre, and of how many centres.
void report(const Tensor& points) {
  const Tensor gaps = unsqueeze(points, 1) - centres(points.device());  // (N, kClouds, 2)
  const Tensor near = less(norm(gaps, 2, {2}), Tensor::scalar(4 * kDeviation));
  const Tensor share = mean(to(near, DType::f32), {0});  // (kClouds)
  const Tensor found = greater(share, Tensor::scalar(0.02));
  std::cout << sum(to(found, DType::i64)).item() << " of " << kClouds << " clouds, "
            << 100 * sum(share).item() << " % of the points in them\n";
}

void run(const amp::Preset& preset, Device device) {
  Mlp generator(kNoise, 2), discriminator(2, 1);
  for (Mlp* net : {&generator, &discriminator}) {
    net->to(device);
    preset.apply(*net);
  }
  const optim::AdamWOptions options{.beta1 = 0.5};
  optim::AdamW generator_optimizer(optim::split_by_decay(generator, 0), options);
  optim::AdamW discriminator_optimizer(optim::split_by_decay(discriminator, 0), options);
  generator_optimizer.set_learning_rate(1e-3);
  discriminator_optimizer.set_learning_rate(1e-3);
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));

  for (int64_t step = 0; step < kSteps; ++step) {
    RandomState::current().begin_step(/*seed=*/1, static_cast<uint64_t>(step));
    const amp::Autocast scope(preset);
    const Tensor made = generator.forward(randn({kBatch, kNoise}, device));

    // The discriminator learns to tell them apart. detach(): the generator is not to learn from it.
    discriminator_optimizer.zero_grad();
    const Tensor loss_d = judged(discriminator.forward(real_points(device)), 1) +
                          judged(discriminator.forward(made.detach()), 0);
    scaler.scale(loss_d).backward();
    scaler.step(discriminator_optimizer);

    // The generator learns what the discriminator, as it is now, takes for real.
    generator_optimizer.zero_grad();
    const Tensor loss_g = judged(discriminator.forward(made), 1);
    scaler.scale(loss_g).backward();
    scaler.step(generator_optimizer);
    scaler.update();  // once, at the end: a step that overflowed was skipped by itself

    if (step % 200 == 199)
      std::cout << "step " << step + 1 << ": discriminator " << loss_d.item() << ", generator "
                << loss_g.item() << '\n';
  }
  const NoGrad off;
  const amp::Autocast scope(preset);
  const Tensor points = generator.forward(randn({1000, kNoise}, device));
  report(to(to(points, DType::f32), Device::cpu()));
}

int main(int argc, char** argv) try {
  RandomState::current().set_seed(1);  // of the initial weights
  const Device device = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  run(amp::Preset::parse(argc > 1 ? argv[1] : "fp16"), device);
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
