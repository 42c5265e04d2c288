// The C++ side of docs/from-pytorch.md, which quotes it: tests/programs/documents.sh compares the
// two and runs this.
#include <iostream>

#include <binade/binade.h>

using namespace binade;

namespace {

class Mlp : public nn::Module {
 public:
  Mlp(int64_t inputs, int64_t hidden, int64_t outputs)
      : up_(add<nn::Linear>("up", inputs, hidden)),
        dropout_(add<nn::Dropout>("dropout", 0.1)),
        down_(add<nn::Linear>("down", hidden, outputs)) {}

  Tensor forward(const Tensor& x) const {  // (N, inputs) → (N, outputs)
    return down_->forward(dropout_->forward(gelu(up_->forward(x))));
  }

 private:
  std::shared_ptr<nn::Linear> up_;
  std::shared_ptr<nn::Dropout> dropout_;
  std::shared_ptr<nn::Linear> down_;
};

void gradients() {
  const Tensor x = tensor({1, 2, 3}).set_requires_grad(true);
  const Tensor y = sum(x * x);
  y.backward();
  std::cout << x.grad() << '\n';  // [2, 4, 6]: an Array, which knows nothing of the tape
  const Tensor dx = grad({sum(exp(x))}, {x})[0];  // leaves everybody's grad() alone
  {
    const NoGrad off;
    const Tensor z = x * 2.0;  // not recorded
  }
}

void mixed_precision_step() {
  const Device device = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  RandomState::current().set_seed(1);
  Mlp net(16, 64, 1);
  net.to(device);
  const auto preset = amp::Preset::parse("fp16");
  preset.apply(net);
  optim::AdamW optimizer(net, {.learning_rate = 1e-3, .weight_decay = 0.01});
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));

  for (uint64_t step = 0; step < 10; ++step) {
    RandomState::current().begin_step(/*seed=*/1, step);
    const Tensor x = randn({32, 16}, device), target = mean(x, {1}, /*keep_dims=*/true);
    optimizer.zero_grad();
    Tensor loss;
    {
      const amp::Autocast scope(preset);
      loss = mse_loss(net.forward(x), target);
    }
    scaler.scale(loss).backward();
    scaler.clip_norm(1.0);
    scaler.step(optimizer);
    scaler.update();
  }
}

void accumulation() {
  Mlp net(16, 64, 1);
  optim::AdamW optimizer(optim::split_by_decay(net, 0.01));
  optimizer.set_learning_rate(1e-3);
  const TensorList micro_batches = {randn({8, 16}), randn({8, 16})};

  optimizer.zero_grad();
  for (const Tensor& x : micro_batches) {
    const Tensor loss = mean(square(net.forward(x))) / 2.0;  // of two micro-batches
    loss.backward();
    optimizer.accumulate();  // adds to a sum in f32
  }
  optimizer.step();
}

void two_optimizers() {
  const auto preset = amp::Preset::parse("fp16");
  Mlp generator(8, 64, 2), discriminator(2, 64, 1);
  preset.apply(generator);
  preset.apply(discriminator);
  optim::AdamW opt_g(generator, {.learning_rate = 1e-3}, {.beta1 = 0.5});
  optim::AdamW opt_d(discriminator, {.learning_rate = 1e-3}, {.beta1 = 0.5});
  amp::GradScaler scaler(Device::cpu(), amp::GradScalerOptions::of(preset));
  const Tensor real = randn({32, 2});
  const Tensor ones = Tensor::ones({32, 1}), zeros = Tensor::zeros({32, 1});

  const amp::Autocast scope(preset);
  const Tensor made = generator.forward(randn({32, 8}));
  opt_d.zero_grad();
  const Tensor loss_d = bce_with_logits_loss(discriminator.forward(real), ones) +
                        bce_with_logits_loss(discriminator.forward(made.detach()), zeros);
  scaler.scale(loss_d).backward();
  scaler.step(opt_d);

  opt_g.zero_grad();
  const Tensor loss_g = bce_with_logits_loss(discriminator.forward(made), ones);
  scaler.scale(loss_g).backward();
  scaler.step(opt_g);
  scaler.update();
}

void gradient_penalty() {
  Mlp critic(2, 64, 1);
  optim::AdamW optimizer(critic, {.learning_rate = 1e-3});
  const Tensor real = randn({32, 2}), made = randn({32, 2}) * 2.0;

  const Tensor mix = rand({32, 1});
  const Tensor between = (mix * real + (1 - mix) * made).set_requires_grad(true);
  const Tensor judged = sum(critic.forward(between));
  const Tensor gradient = grad({judged}, {between}, {}, {.create_graph = true})[0];
  const Tensor penalty = mean(square(norm(gradient, 2, {1}) - 1.0));
  const Tensor loss = mean(critic.forward(made)) - mean(critic.forward(real)) + 10 * penalty;
  optimizer.zero_grad();
  loss.backward();
  optimizer.step();
}

void schedule_and_groups() {
  Mlp net(16, 64, 1);
  optim::ParameterGroup slow{.lr_factor = 0.1}, fast{.weight_decay = 0.01};
  for (const nn::NamedParameter& named : net.named_parameters())
    (named.name.starts_with("up.") ? slow : fast).parameters.push_back(named);
  optim::AdamW optimizer({slow, fast});

  const optim::Schedule schedule{.learning_rate = 1e-3, .warmup = 100, .total = 1000};
  for (int64_t step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    optimizer.set_learning_rate(schedule.at(step));  // cosine, after a linear warm-up
    mean(square(net.forward(randn({8, 16})))).backward();
    optimizer.step();
  }
}

void states() {
  Mlp net(16, 64, 1), other(16, 64, 1);
  write_safetensors("mlp.safetensors", net.state());
  other.load_state(nn::read_state("mlp.safetensors"));  // strict: names and shapes must fit
  const nn::StateDict best = nn::copy_of(net.state());  // state() itself is the live memory
  net.load_state(best, /*strict=*/false);               // names may be missing or unexpected
}

void averages() {
  Mlp net(16, 64, 1);
  const auto preset = amp::Preset::parse("fp16");
  preset.apply(net);
  optim::AdamW optimizer(optim::split_by_decay(net, 0.01));
  optimizer.set_learning_rate(1e-3);
  amp::GradScaler scaler(Device::cpu(), amp::GradScalerOptions::of(preset));
  const Tensor x = randn({32, 16}), target = mean(x, {1}, true);
  const amp::Autocast scope(preset);
  const nn::StateDict before = net.snapshot();

  optim::Ema ema(optimizer, /*decay=*/0.99);
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    scaler.scale(mse_loss(net.forward(x), target)).backward();
    scaler.step(optimizer);
    scaler.update();
    ema.update(scaler.found_inf(optimizer));  // a skipped step moves no average
  }
  const nn::StateDict trained = net.snapshot();
  {
    const optim::Ema::Scope averaged(ema);  // net computes with the averages until the brace
    const NoGrad off;
    const Tensor y = net.forward(x);
    const auto average = net.snapshot().at("up.weight").to_vector<float>();
    check(average != before.at("up.weight").to_vector<float>() &&
              average != trained.at("up.weight").to_vector<float>(),
          "the scope computes with the averages");
  }
  check(net.snapshot().at("up.weight").to_vector<float>() ==
            trained.at("up.weight").to_vector<float>(),
        "the weights are back");
}

void data_loading(const std::string& csv) {
  const Device device = Device::cpu();
  const data::CsvTable table = data::read_csv(csv);  // (rows, columns) f32
  const Tensor all = Tensor(table.values.to(device));
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Tensor& rows : split(randperm(all.size(0), device), 32, 0)) {
      const Tensor batch = index_select(all, 0, rows);  // (32, columns); the last has the rest
    }
  }
}

void own_loop(int64_t first_step, int64_t last_step) {
  RandomState::current().set_seed(1);
  Mlp net(16, 64, 1);
  const auto preset = amp::Preset::parse("fp16");
  preset.apply(net);
  optim::AdamW optimizer(optim::split_by_decay(net, 0.01));
  optimizer.set_learning_rate(1e-3);
  amp::GradScaler scaler(Device::cpu(), amp::GradScalerOptions::of(preset));

  const std::filesystem::path path = "checkpoint.safetensors";
  if (first_step > 0) {
    const nn::States saved = nn::read_states(path);
    net.load_state(saved.at("model"));
    optimizer.load_state(saved.at("optimizer"));
    scaler.load_state(saved.at("scaler"));
  }
  for (int64_t step = first_step; step < last_step; ++step) {
    RandomState::current().begin_step(/*seed=*/1, static_cast<uint64_t>(step));
    const Tensor x = randn({32, 16});
    optimizer.zero_grad();
    {
      const amp::Autocast scope(preset);
      scaler.scale(mse_loss(net.forward(x), mean(x, {1}, true))).backward();
    }
    scaler.step(optimizer);
    scaler.update();
  }
  nn::write_states(
      path, {{"model", net.state()}, {"optimizer", optimizer.state()}, {"scaler", scaler.state()}});
}

}  // namespace

// Is given a table to read. Writes into the present folder.
int main(int argc, char** argv) {
  check(argc == 2, "expected the name of a CSV file");
  gradients();
  mixed_precision_step();
  accumulation();
  two_optimizers();
  gradient_penalty();
  schedule_and_groups();
  states();
  averages();
  data_loading(argv[1]);
  own_loop(0, 10);
  const auto trained = [] {
    return nn::copy_of(nn::read_states("checkpoint.safetensors").at("model"));
  };
  const nn::StateDict whole = trained();
  own_loop(0, 5);
  own_loop(5, 10);
  const nn::StateDict resumed = trained();
  for (const auto& [name, array] : whole)
    check(array.to_vector<float>() == resumed.at(name).to_vector<float>(),
          "a resumed run ends elsewhere: ", name);
  std::cout << "done\n";
}
