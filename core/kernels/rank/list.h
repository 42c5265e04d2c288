// A list of documents as the ranking losses see it, and the threads that work on it together.
//
// A loss is written once for both devices, as what every thread of a *team* does. A team is
//   one thread                      on a CPU (cpu/rank/lone_team.h)
//   a warp, a block or a cluster    on a GPU (cuda/rank/teams.cuh)
// and has
//   kAlone                          whether it is one thread
//   lane(), lanes()                 this thread's number and how many there are
//   group(), groups(),              the threads cut into groups, for loops within loops
//   member(), members()
//   sync()                          what all threads wrote before it is seen by all behind it
//   reduce(value, op)               over all threads, the same bits in all of them
//   group_reduce(value, op)         over the threads of a group, in all of them
//   scan(n, get, put, op)           put(i, get(0) op … op get(i)) for i in [0, n); ends with sync()
//   sort_descending(list, n, key, order)
//                                   order[0 … n): i by falling key(i), equal ones by i; ends with
//                                   sync()
// All threads of a team call these together.
#pragma once

#include <cstdint>

#include <binade/core/kernels/rank.h>
#include <binade/core/kernels/rank/math.h>

namespace binade::kernels::rank {

struct Draws {
  uint64_t seed = 0;
  const int64_t* step = nullptr;
  uint64_t place = 0;
  BINADE_RANK uint32_t word(int64_t element) const {
    return philox(seed, static_cast<uint64_t>(*step), place, static_cast<uint64_t>(element) / 4)
        .word[element % 4];
  }
};

// C: what is computed in.
template <class C>
struct RankList {
  int n;        // documents
  int columns;  // numbers of a document's output
  int64_t first;
  const C* scores;       // (n, columns)
  const float* labels;   // (n)
  const float* weights;  // (n) or null
  C* gradient;           // (n, columns)
  C* work;               // scratch: the loss's kArrays arrays of n
  int* orders;           // scratch: 2 arrays of n
  uint64_t* keys;        // scratch of sort_descending: n; unused on the CPU
  Draws draws;
  bool* bad_label;  // to be set by a label that the loss cannot take

  BINADE_RANK C* array(int k) const { return work + static_cast<int64_t>(k) * n; }
  BINADE_RANK int* order(int k = 0) const { return orders + static_cast<int64_t>(k) * n; }
  BINADE_RANK C label(int i) const { return static_cast<C>(labels[i]); }
  BINADE_RANK C weight(int i) const { return weights ? static_cast<C>(weights[i]) : C(1); }
};

struct Add {
  template <class T>
  BINADE_RANK T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  BINADE_RANK T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Least {
  template <class T>
  BINADE_RANK T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

// value · e^exponent: sums of exponentials whatever their size. Their exponents stay what they
// were, so that a difference of two is as exact as that of the scores they come from; a logarithm
// of the sum would round to an ulp of its size.
template <class C>
struct Scaled {
  C exponent = Range<C>::kLeast;
  C value = 0;
  // value · e^(exponent + x)
  BINADE_RANK C times_exp(C x) const { return value * exponential(exponent + x); }
};
template <class C>
BINADE_RANK Scaled<C> operator+(const Scaled<C>& a, const Scaled<C>& b) {
  const C exponent = Largest()(a.exponent, b.exponent);
  return {exponent, a.value * exponential(a.exponent - exponent) +
                        b.value * exponential(b.exponent - exponent)};
}

// Sum over [0, n) of term(i), in all threads. In double: one thread of a CPU adds up all of a list.
template <class Team, class Term>
BINADE_RANK auto sum_over(Team& team, int n, const Term& term) {
  double sum = 0;
  for (int i = team.lane(); i < n; i += team.lanes()) sum += static_cast<double>(term(i));
  return static_cast<decltype(term(0))>(team.reduce(sum, Add()));
}

// Calls body(i) for i in [0, n), then sync().
template <class Team, class Body>
BINADE_RANK void for_each(Team& team, int n, const Body& body) {
  for (int i = team.lane(); i < n; i += team.lanes()) body(i);
  team.sync();
}

template <class Team, class C>
BINADE_RANK bool takes_part(Team& team, const RankList<C>& list, RankUsable rule) {
  float least = Range<float>::kMost, largest = Range<float>::kLeast;
  for (int i = team.lane(); i < list.n; i += team.lanes()) {
    least = Least()(least, list.labels[i]);
    largest = Largest()(largest, list.labels[i]);
  }
  return is_usable(rule, list.n, team.reduce(least, Least()), team.reduce(largest, Largest()));
}

// The gradient, whose threads wrote what they like, times `factor`.
template <class Team, class C>
BINADE_RANK void scale_gradient(Team& team, const RankList<C>& list, C factor) {
  team.sync();
  for (int i = team.lane(); i < list.n * list.columns; i += team.lanes())
    list.gradient[i] *= factor;
}

// Σ G/D(r) over the first `ranks` documents in the order of their labels. Uses order(1).
template <class Team, class C>
BINADE_RANK C ideal_dcg(Team& team, const RankList<C>& list, int ranks) {
  int* order = list.order(1);
  team.sort_descending(
      list, list.n, [&](int i) { return list.label(i); }, order);
  return sum_over(team, ranks, [&](int r) { return gain(list.label(order[r])) * discount<C>(r); });
}

}  // namespace binade::kernels::rank
