// Two experts under one roof, routed by what a token is (mixture of transformers, Liang et al.
// 2024; BAGEL, arXiv 2505.14683): `understanding` takes texts, what the ViT sees and markers,
// `generation` takes latents.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <binade/autograd/ops/shape.h>
#include <binade/nn/module.h>

namespace binade::nn {

// The two halves of packed rows, (B, U, …) and (B, G, …); one of them may be undefined.
struct Halves {
  Tensor understanding, generation;

  int64_t split() const { return understanding.defined() ? understanding.size(1) : 0; }
  // Side by side, (B, U + G, …).
  Tensor joined() const {
    if (!generation.defined()) return understanding;
    return understanding.defined() ? cat({understanding, generation}, 1) : generation;
  }
  // The halves of x (B, U + G, …), as these are.
  Halves halves_of(const Tensor& x) const {
    if (!generation.defined()) return {x, {}};
    if (!understanding.defined()) return {{}, x};
    return {slice(x, 1, 0, split()), slice(x, 1, split())};
  }
};

// f(index 0, understanding) and f(index 1, generation), of what is defined.
template <class Function>
Halves for_halves(const Halves& x, const Function& f) {
  return {x.understanding.defined() ? f(size_t{0}, x.understanding) : Tensor(),
          x.generation.defined() ? f(size_t{1}, x.generation) : Tensor()};
}

// A layer for each half, or one for both.
template <class Layer>
struct Experts {
  std::shared_ptr<Layer> layer[2];

  bool shared() const { return layer[0] == layer[1]; }
  const Layer& operator[](size_t half) const { return *layer[half]; }
  Halves forward(const Halves& x) const {
    return for_halves(x, [&](size_t half, const Tensor& in) { return layer[half]->forward(in); });
  }
};

// Suffix of the names of generation's own layers, as BAGEL's files have them.
inline constexpr const char* kGenerationSuffix = "_moe_gen";

// Makes the layers by make(name); of two the second begins as a copy of the first.
template <class Layer, class Make>
Experts<Layer> make_experts(const std::string& name, bool two, const Make& make) {
  const std::shared_ptr<Layer> understanding = make(name);
  if (!two) return {{understanding, understanding}};
  const std::shared_ptr<Layer> generation = make(name + kGenerationSuffix);
  generation->copy_values(*understanding);
  return {{understanding, generation}};
}

}  // namespace binade::nn
