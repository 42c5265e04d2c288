// K decoding heads with random weights, and their loss in public ops: what the tests of
// multi_head_loss compare with.
#pragma once

#include <optional>
#include <vector>

#include <binade/autograd/ops.h>

#include "core/kernel_arrays.h"

namespace binade::test {

// The thread's loss scale while it lives.
class LossScale {
 public:
  explicit LossScale(double scale, Device device = {})
      : scale_(Array::full({}, scale, DType::f32, device)),
        previous_(exchange_loss_scale(&scale_)) {}
  ~LossScale() { exchange_loss_scale(previous_); }
  LossScale(const LossScale&) = delete;
  LossScale& operator=(const LossScale&) = delete;
  void set(double scale) { scale_.fill(scale); }

 private:
  Array scale_;
  const Array* previous_;
};

struct DecodingHeads {
  Tensor hidden;  // (2, T, D)
  std::vector<DecodingHead> heads;
  Tensor labels;  // (K, 2, T), every seventh ignored

  struct Sizes {
    int64_t length = 20, dim = 6, classes = 19;
    std::vector<int> blocks = {1, 2, 0};  // of every head
    bool shared_weight = false, taught = false, own_hidden = false;
  };
  DecodingHeads(const Sizes& sizes, DType dtype, Device device = {}) {
    Random random(71);
    const auto leaf = [&](const Shape& shape, double spread, bool wanted = true) {
      return Tensor(random_array(shape, dtype, random, spread).to(device), wanted);
    };
    const Shape rows{2, sizes.length, sizes.dim};
    hidden = leaf(rows, 1);
    for (const int blocks : sizes.blocks) {
      DecodingHead& head = heads.emplace_back();
      for (int j = 0; j < blocks; ++j)
        head.blocks.push_back({leaf({sizes.dim, sizes.dim}, 0.4), leaf({sizes.dim}, 0.4)});
      head.weight = sizes.shared_weight && heads.size() > 1 ? heads[0].weight
                                                            : leaf({sizes.classes, sizes.dim}, 0.5);
      head.coefficient = 1.0 / static_cast<double>(heads.size());
      if (sizes.own_hidden) head.hidden = leaf(rows, 1);
      if (!sizes.taught) continue;
      head.teacher = Teacher{leaf({2, sizes.length, 4}, 1, false),
                             leaf({sizes.classes, 4}, 0.7, false), 0.75, 0};
    }
    std::vector<int64_t> ids(sizes.blocks.size() * static_cast<size_t>(2 * sizes.length));
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] =
          i % 7 == 3 ? -100 : static_cast<int64_t>(random() % static_cast<uint64_t>(sizes.classes));
    labels =
        Tensor::from(ids, {static_cast<int64_t>(sizes.blocks.size()), 2, sizes.length}, device);
  }
  // The same values in another dtype, on the CPU; tensors that are one stay one.
  DecodingHeads(const DecodingHeads& other, DType dtype) : heads(other.heads) {
    std::vector<std::pair<Tensor, Tensor>> known;
    const auto copied = [&](const Tensor& from) {
      if (!from.defined()) return Tensor();
      for (const auto& [seen, copy] : known)
        if (seen.state() == from.state()) return copy;
      known.emplace_back(
          from, Tensor(from.array().to(Device::cpu()).to(dtype).clone(), from.requires_grad()));
      return known.back().second;
    };
    hidden = copied(other.hidden);
    labels = Tensor(other.labels.array().to(Device::cpu()));
    for (DecodingHead& head : heads) {
      head.hidden = copied(head.hidden);
      head.weight = copied(head.weight);
      for (ResidualBlock& block : head.blocks) block = {copied(block.weight), copied(block.bias)};
      if (!head.teacher) continue;
      head.teacher->hidden = copied(head.teacher->hidden);
      head.teacher->weight = copied(head.teacher->weight);
    }
  }

  MultiHeadLoss loss(const MultiHeadLossOptions& options = {}) const {
    return multi_head_loss(hidden, heads, labels, options);
  }

  // (2, T, V) with padding columns cut off.
  Tensor logits(const DecodingHead& head, int64_t classes = 0) const {
    Tensor h = head.hidden.defined() ? head.hidden : hidden;
    for (const ResidualBlock& block : head.blocks)
      h = h + silu(linear(h, block.weight, block.bias));
    const Tensor all = linear(h, head.weight);
    return classes ? slice(all, -1, 0, classes) : all;
  }
  Tensor teacher_probabilities(const DecodingHead& head, int64_t classes = 0) const {
    const Teacher& teacher = *head.teacher;
    const Tensor all = linear(teacher.hidden, teacher.weight) * (1 / teacher.temperature);
    return softmax(classes ? slice(all, -1, 0, classes) : all);
  }
  // The loss of head k, written in public ops that hold everything.
  Tensor plain_loss_of(size_t k, const MultiHeadLossOptions& options = {}) const {
    const DecodingHead& head = heads[k];
    const Tensor x = logits(head, options.classes);
    const Tensor targets = select(labels, 0, static_cast<int64_t>(k));
    const Tensor ignore = Tensor::scalar(-100, DType::i64);
    const Tensor valid = to(not_equal(targets, ignore), DType::f64);
    CrossEntropyOptions per_row;
    per_row.reduction = Reduction::none;
    Tensor rows = cross_entropy(x, targets, per_row) * head.hard;
    if (head.teacher) {
      const Tensor p = teacher_probabilities(head, options.classes);
      rows = rows + valid * sum(p * (log(p) - log_softmax(x)), {-1}) * head.soft -
             valid * sum(minimum(p, softmax(x)), {-1}) * head.acceptance;
    }
    const double count = options.normalisers.defined() ? options.normalisers.to_vector<double>()[k]
                                                       : std::max(sum(valid).item(), 1.0);
    return sum(rows) * (1 / count);
  }
  Tensor plain_loss(const MultiHeadLossOptions& options = {}) const {
    Tensor total = Tensor::scalar(0, DType::f64);
    for (size_t k = 0; k < heads.size(); ++k)
      if (heads[k].coefficient > 0)
        total = total + plain_loss_of(k, options) * heads[k].coefficient;
    return total;
  }

  // Every tensor that wants a gradient, by name.
  std::vector<std::pair<std::string, Tensor>> parameters() const {
    std::vector<std::pair<std::string, Tensor>> all;
    const auto add = [&](const std::string& name, const Tensor& tensor) {
      if (tensor.defined() && tensor.requires_grad()) all.emplace_back(name, tensor);
    };
    add("hidden", hidden);
    for (size_t k = 0; k < heads.size(); ++k) {
      const std::string head = concat("head ", k, " ");
      add(head + "hidden", heads[k].hidden);
      add(head + "weight", heads[k].weight);
      for (const ResidualBlock& block : heads[k].blocks) {
        add(head + "block weight", block.weight);
        add(head + "block bias", block.bias);
      }
    }
    return all;
  }
  void zero_grad() const {
    for (const auto& [name, tensor] : parameters()) tensor.zero_grad();
  }
};

// Largest |a · factor − b| relative to the largest |b|.
inline double relative_error(const Array& a, double factor, const Array& b) {
  const std::vector<double> left = a.to_vector<double>(), right = b.to_vector<double>();
  if (left.size() != right.size()) return INFINITY;
  double worst = 0, largest = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    const double error = std::abs(left[i] * factor - right[i]);
    worst = error > worst || std::isnan(error) ? error : worst;
    largest = std::max(largest, std::abs(right[i]));
  }
  return worst == 0 ? 0 : worst / largest;
}

}  // namespace binade::test
