// Trains a small convolutional network on Fashion-MNIST (Xiao et al. 2017) in any precision preset.
//
//   train_fashion_mnist --precision fp16
#include <fmt/core.h>

#include <binade/binade.h>

#include "common.h"
#include "device.h"
#include "training/ranks.h"

using namespace binade;

namespace {

class ConvNet : public nn::Module {
 public:
  ConvNet()
      : conv1_(add<nn::Conv2d>("conv1", 1, 32, 3, Conv2dOptions{.padding = {1, 1}})),
        norm1_(add<nn::BatchNorm2d>("norm1", 32)),
        conv2_(add<nn::Conv2d>("conv2", 32, 64, 3, Conv2dOptions{.padding = {1, 1}})),
        norm2_(add<nn::BatchNorm2d>("norm2", 64)),
        hidden_(add<nn::Linear>("hidden", 64 * 7 * 7, 128)),
        dropout_(add<nn::Dropout>("dropout", 0.25)),
        out_(add<nn::Linear>("out", 128, 10)) {}

  Tensor forward(const Tensor& images) const {  // (N, 1, 28, 28) → (N, 10)
    Tensor x = max_pool2d(relu(norm1_->forward(conv1_->forward(images))));  // (N, 32, 14, 14)
    x = max_pool2d(relu(norm2_->forward(conv2_->forward(x))));              // (N, 64, 7, 7)
    x = nn::forward_relu(*hidden_, flatten(x, 1));
    return out_->forward(dropout_->forward(x));
  }

 private:
  std::shared_ptr<nn::Conv2d> conv1_;
  std::shared_ptr<nn::BatchNorm2d> norm1_;
  std::shared_ptr<nn::Conv2d> conv2_;
  std::shared_ptr<nn::BatchNorm2d> norm2_;
  std::shared_ptr<nn::Linear> hidden_;
  std::shared_ptr<nn::Dropout> dropout_;
  std::shared_ptr<nn::Linear> out_;
};

struct Dataset {
  Array images;  // (N, 1, 28, 28) f32, about zero mean and unit variance
  Array labels;  // (N) i64
};

Dataset load(const std::filesystem::path& folder, const std::string& part, Device device) {
  constexpr double kMean = 0.2860 * 255, kDeviation = 0.3530 * 255;  // of the training images
  const Array raw = data::read_idx(folder / (part + "-images-idx3-ubyte.gz"));
  const Tensor pixels(raw.to(DType::f32).to(device));
  const Tensor images = reshape((pixels - kMean) / kDeviation, {-1, 1, raw.size(1), raw.size(2)});
  const Array labels = data::read_idx(folder / (part + "-labels-idx1-ubyte.gz"));
  return {images.array(), labels.to(DType::i64).to(device)};
}

double accuracy(ConvNet& net, const Dataset& data, const amp::Preset& preset) {
  const NoGrad off;
  net.eval();
  const int64_t count = data.labels.numel(), batch = 1000;
  double correct = 0;
  for (int64_t i = 0; i < count; i += batch) {
    const amp::Autocast scope(preset);
    const Tensor logits = net.forward(Tensor(data.images.slice(0, i, i + batch)));
    const Tensor hits = equal(argmax(logits, 1), Tensor(data.labels.slice(0, i, i + batch)));
    correct += sum(to(hits, DType::f32)).item();
  }
  net.train();
  return correct / static_cast<double>(count);
}

struct Options {
  std::string data = "/usr/share/datasets/fashion-mnist", device = "auto", precision;
  int64_t epochs = 4, batch_size = 128, workers = 2;
  double learning_rate = 2e-3;
  uint64_t seed = 1;
};

void train_fashion_mnist(const Options& o) {
  examples::require_one_rank("its batch norm follows every batch in turn");
  const Device device = examples::choose_device(o.device);
  const amp::Preset preset =
      o.precision.empty() ? amp::Preset::default_for(device) : amp::Preset::parse(o.precision);
  const Dataset training = load(o.data, "train", Device::cpu()),
                test = load(o.data, "t10k", device);

  RandomState::current().set_seed(o.seed);
  ConvNet net;
  net.to(device);
  preset.apply(net);  // half parameters with f32 masters, where the preset has them
  optim::AdamW optimizer(optim::split_by_decay(net, 0.01));
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));

  const int64_t count = training.labels.numel(), steps_per_epoch = count / o.batch_size;
  const optim::Schedule schedule{.learning_rate = o.learning_rate,
                                 .warmup = steps_per_epoch / 4,
                                 .total = o.epochs * steps_per_epoch};
  // A batch depends on its number alone, so that several threads can make them ahead.
  const auto make_batch = [&](int64_t step) -> train::Batch {
    const data::Permutation order(count, o.seed, static_cast<uint64_t>(step / steps_per_epoch));
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < o.batch_size; ++i)
      rows.push_back(order(step % steps_per_epoch * o.batch_size + i));
    const Tensor index = Tensor::from(rows, {o.batch_size});
    return {{"images", index_select(Tensor(training.images), 0, index).array()},
            {"labels", index_select(Tensor(training.labels), 0, index).array()}};
  };
  data::OrderedPrefetcher<train::Batch> batches(make_batch,
                                                {.workers = static_cast<int>(o.workers)});
  for (int64_t step = 0; step < schedule.total; ++step) {
    const train::Batch batch = batches.next();
    const Tensor images(batch.at("images").to(device)), labels(batch.at("labels").to(device));

    RandomState::current().begin_step(o.seed, static_cast<uint64_t>(step));
    optimizer.zero_grad();
    optimizer.set_learning_rate(schedule.at(step));
    Tensor loss;
    {
      const amp::Autocast scope(preset);  // ops choose their precision by class
      loss = cross_entropy(net.forward(images), labels);
    }
    scaler.scale(loss).backward();
    scaler.step(optimizer);  // skipped, as a whole, when a gradient overflowed
    scaler.update();
    if (step % steps_per_epoch == steps_per_epoch - 1)
      fmt::print("epoch {}: loss {:.4f}, test accuracy {:.2f} %\n", step / steps_per_epoch + 1,
                 loss.item(), 100 * accuracy(net, test, preset));
  }
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command(
      "Trains a convolutional network on Fashion-MNIST, in any precision preset");
  Options o;
  command.add("--data", o.data, "Folder with the four IDX files");
  command.add("--device", o.device, "auto, cpu, cuda or cuda:N");
  command.add("--precision", o.precision, "fp32, fp16, fp16-autocast, bf16 or fp16-static:S");
  command.add("--epochs", o.epochs, "Passes over the training images").range(1, 1000);
  command.add("--batch-size", o.batch_size, "Images a step").range(1, 10000);
  command.add("--workers", o.workers, "Threads that make batches ahead").range(1, 64);
  command.add("--learning-rate", o.learning_rate, "Highest learning rate");
  command.add("--seed", o.seed, "Seed of weights, order and dropout");
  return examples::run_program(command, argc, argv, [&] { train_fashion_mnist(o); });
}
