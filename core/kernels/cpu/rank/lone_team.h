// The team of core/kernels/rank/list.h that is one thread.
#pragma once

#include <algorithm>
#include <bit>
#include <type_traits>
#include <vector>

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::cpu {

template <class C>
class LoneTeam {
 public:
  static constexpr bool kAlone = true;
  static int lane() { return 0; }
  static int lanes() { return 1; }
  static int group() { return 0; }
  static int groups() { return 1; }
  static int member() { return 0; }
  static int members() { return 1; }
  static void sync() {}
  template <class T, class Op>
  static T reduce(const T& value, Op) {
    return value;
  }
  template <class T, class Op>
  static T group_reduce(const T& value, Op) {
    return value;
  }
  template <class Get, class Put, class Op>
  static void scan(int n, const Get& get, const Put& put, Op op) {
    auto sum = get(0);
    put(0, sum);
    for (int i = 1; i < n; ++i) {
      sum = op(sum, get(i));
      put(i, sum);
    }
  }
  template <class Key>
  void sort_descending(const rank::RankList<C>&, int n, const Key& key, int* order) {
    keys_.resize(static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) keys_[static_cast<size_t>(i)] = {descending(key(i)), i};
    std::sort(keys_.begin(), keys_.end());
    for (int i = 0; i < n; ++i) order[i] = keys_[static_cast<size_t>(i)].second;
  }

 private:
  using Bits = std::conditional_t<sizeof(C) == 8, uint64_t, uint32_t>;
  // Bits that grow as x falls; a total order, NaN included. −0 is 0.
  static Bits descending(C x) {
    constexpr Bits kSign = Bits{1} << (8 * sizeof(C) - 1);
    const Bits bits = std::bit_cast<Bits>(x + C{0});
    return bits & kSign ? bits : ~(bits | kSign);
  }
  std::vector<std::pair<Bits, int>> keys_;
};

}  // namespace binade::kernels::cpu
