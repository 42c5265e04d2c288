#include <binade/autograd/gradient_watch.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <vector>

#include <binade/autograd/custom_function.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/recompute.h>

namespace binade::test {
namespace {

// Notes what it is told, by names, and the gradients as they were then.
class Notes : public GradientWatch {
 public:
  explicit Notes(std::map<std::string, Tensor> leaves) : leaves_(std::move(leaves)) {}

  void begin(const TensorList& leaves) override {
    begun.clear();
    for (const Tensor& leaf : leaves) begun.push_back(name_of(leaf));
    std::sort(begun.begin(), begun.end());
  }
  void complete(const Tensor& leaf) override {
    const std::string name = name_of(leaf);
    order.push_back(name);
    if (leaf.grad().defined()) seen[name] = leaf.grad().to_vector<float>();
  }

  // Runs backward and compares what was seen with what there is at the end.
  void watch(const Tensor& loss) {
    {
      const Scope scope(this);
      loss.backward();
    }
    for (const auto& [name, leaf] : leaves_) {
      CAPTURE(name);
      CHECK(leaf.grad().defined() == (seen.count(name) != 0));
      if (leaf.grad().defined()) CHECK(seen[name] == leaf.grad().to_vector<float>());
    }
  }

  std::vector<std::string> begun, order;
  std::map<std::string, std::vector<float>> seen;

 private:
  std::string name_of(const Tensor& leaf) const {
    for (const auto& [name, one] : leaves_)
      if (one.state() == leaf.state()) return name;
    return "unknown";
  }

  std::map<std::string, Tensor> leaves_;
};

Tensor leaf(float value) {
  return Tensor(Array::from(std::vector<float>{value, value + 1}, {2}), true);
}

using Names = std::vector<std::string>;

TEST_CASE("gradient watch: leaves are complete in the reverse order of their first use",
          "[autograd]") {
  const Tensor a = leaf(1), b = leaf(2), c = leaf(3), unused = leaf(4);
  Notes notes({{"a", a}, {"b", b}, {"c", c}, {"unused", unused}});
  notes.watch(sum((a * b + c) * c));
  CHECK(notes.begun == Names{"a", "b", "c"});
  CHECK(notes.order == Names{"c", "a", "b"});
}

TEST_CASE("gradient watch: a leaf used at both ends is complete with its earliest use",
          "[autograd]") {
  const Tensor tied = leaf(1), middle = leaf(2);
  Notes notes({{"tied", tied}, {"middle", middle}});
  notes.watch(sum((tied * 2.0) * middle * tied));
  CHECK(notes.order == Names{"middle", "tied"});
}

TEST_CASE("gradient watch: what recompute reaches is known before it runs again", "[autograd]") {
  const Tensor before = leaf(1), inside = leaf(2), inner = leaf(3), behind = leaf(4);
  Notes notes({{"before", before}, {"inside", inside}, {"inner", inner}, {"behind", behind}});
  const auto segment = [&](const TensorList& in) -> TensorList {
    // A segment in a segment.
    return recompute([&](const TensorList& again) -> TensorList { return {again[0] * inner}; },
                     {in[0] * inside});
  };
  const Tensor x = before * before;
  notes.watch(sum(recompute(segment, {x})[0] * behind));
  CHECK(notes.begun == Names{"before", "behind", "inner", "inside"});
  CHECK(notes.order.front() == "behind");
  CHECK(notes.order.back() == "before");
}

TEST_CASE("gradient watch: hooks come last, and what they make of a gradient counts",
          "[autograd]") {
  const Tensor hooked = leaf(1), plain = leaf(2);
  hooked.register_hook([](const Array& grad) { return (Tensor(grad) * 3.0).array(); });
  Notes notes({{"hooked", hooked}, {"plain", plain}});
  notes.watch(sum(plain * 2.0 * hooked));
  CHECK(notes.order == Names{"plain", "hooked"});
}

TEST_CASE("gradient watch: each pass is told anew, and none inside of it", "[autograd]") {
  const Tensor a = leaf(1), b = leaf(2), other = leaf(3);
  Notes notes({{"a", a}, {"b", b}});
  notes.watch(sum(a * 2.0));
  CHECK(notes.begun == Names{"a"});
  // The gradient is added to; it is complete, and seen, once more.
  notes.watch(sum(a * b));
  CHECK(notes.begun == Names{"a", "b"});
  CHECK(notes.order == Names{"a", "a", "b"});

  const Tensor outer = custom_function(
      "with_backward_inside", {a}, [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; },
      [&](const TensorList&, const TensorList&, const TensorList& dy) -> TensorList {
        const EnableGrad on;
        sum(other * 2.0).backward();
        return {dy[0]};
      })[0];
  notes.order.clear();
  notes.watch(sum(outer));
  CHECK(notes.order == Names{"a"});
  CHECK(other.grad().defined());

  // A scope that has ended is none.
  notes.order.clear();
  sum(a * b).backward();
  CHECK(notes.order.empty());
}

TEST_CASE("gradient guard: is asked before a bound buffer is written, and only then",
          "[autograd]") {
  const Tensor a = leaf(1), b = leaf(2);
  const Array buffer = Array::zeros({2}, DType::f32);
  a.bind_grad(buffer);
  int asked = 0;
  std::vector<float> before;
  set_grad_guard(a, [&] {
    ++asked;
    before = buffer.to_vector<float>();
  });
  sum(a * b).backward();
  CHECK(asked == 1);
  CHECK(before == std::vector<float>{0, 0});
  CHECK(buffer.to_vector<float>() == std::vector<float>{2, 3});
  sum(b * b).backward();
  CHECK(asked == 1);
  set_grad_guard(a, {});
  sum(a * b).backward();
  CHECK(asked == 1);
  CHECK_THROWS_WITH(set_grad_guard(a * b, {}), Catch::Contains("for leaves"));
}

}  // namespace
}  // namespace binade::test
