// The ranking losses as several threads compute them, on the CPU: a team with lanes and groups, as
// a GPU's block has, whose threads meet only where the losses say so. With -fsanitize=thread it
// shows what they forgot to say.
#include <barrier>
#include <memory>
#include <thread>

#include <binade/core/kernels/cpu/rank/lone_team.h>
#include <binade/core/kernels/rank/likelihood.h>
#include <binade/core/kernels/rank/neural_sort.h>
#include <binade/core/kernels/rank/pair_sums.h>
#include <binade/core/kernels/rank/pairs.h>
#include <binade/core/kernels/rank/pointwise.h>
#include <binade/core/kernels/rank/soft_ranks.h>
#include <binade/core/kernels/rank/softmax.h>

#include "heads/rank/loss_cases.h"

using namespace binade;
using namespace binade::heads::rank;
using namespace binade::test;
using binade::kernels::RankLoss;
using binade::kernels::RankLossParams;
using binade::kernels::rank::RankList;

namespace {

constexpr int kLanes = 4;

// What the threads of a team share.
struct Meeting {
  std::barrier<> all{kLanes};
  std::vector<std::unique_ptr<std::barrier<>>> groups;
  std::vector<std::byte> slots = std::vector<std::byte>(kLanes * 64);
  std::vector<std::pair<double, int>> keys;
  explicit Meeting(int members) {
    for (int first = 0; first < kLanes; first += members)
      groups.push_back(std::make_unique<std::barrier<>>(members));
  }
  template <class T>
  T* values() {
    static_assert(sizeof(T) <= 64);
    return reinterpret_cast<T*>(slots.data());
  }
};

// A group of one thread is as in a warp's team, of several as in a block's.
template <int kMembers>
class ThreadTeam {
 public:
  static constexpr int kGroups = kLanes / kMembers;
  static constexpr bool kAlone = false;
  ThreadTeam(Meeting& meeting, int lane) : meeting_(meeting), lane_(lane) {}
  int lane() const { return lane_; }
  static int lanes() { return kLanes; }
  int group() const { return lane_ / kMembers; }
  static int groups() { return kGroups; }
  int member() const { return lane_ % kMembers; }
  static int members() { return kMembers; }
  void sync() { meeting_.all.arrive_and_wait(); }
  template <class T, class Op>
  T reduce(const T& value, Op op) {
    return gather(value, op, 0, kLanes, meeting_.all);
  }
  template <class T, class Op>
  T group_reduce(const T& value, Op op) {
    const int first = group() * kMembers;
    return gather(value, op, first, first + kMembers,
                  *meeting_.groups[static_cast<size_t>(group())]);
  }
  template <class Get, class Put, class Op>
  void scan(int n, const Get& get, const Put& put, Op op) {
    using T = decltype(get(0));
    T carry{};
    for (int start = 0; start < n; start += kLanes) {
      T value{};
      if (start + lane_ < n) value = get(start + lane_);
      T* values = meeting_.values<T>();
      sync();
      values[lane_] = value;
      sync();
      for (int i = 0; i < kLanes; ++i) {
        carry = op(carry, values[i]);
        if (i == lane_) value = carry;
      }
      if (start + lane_ < n) put(start + lane_, value);
    }
    sync();
  }
  template <class C, class Key>
  void sort_descending(const RankList<C>&, int n, const Key& key, int* order) {
    if (lane_ == 0) meeting_.keys.resize(static_cast<size_t>(n));
    sync();
    for (int i = lane_; i < n; i += kLanes)
      meeting_.keys[static_cast<size_t>(i)] = {-static_cast<double>(key(i)), i};
    sync();
    if (lane_ == 0) std::sort(meeting_.keys.begin(), meeting_.keys.end());
    sync();
    for (int r = lane_; r < n; r += kLanes) order[r] = meeting_.keys[static_cast<size_t>(r)].second;
    sync();
  }

 private:
  template <class T, class Op>
  T gather(const T& value, Op op, int begin, int end, std::barrier<>& barrier) {
    T* values = meeting_.values<T>();
    barrier.arrive_and_wait();  // an earlier call's readers are done
    values[lane_] = value;
    barrier.arrive_and_wait();
    T all = values[begin];
    for (int i = begin + 1; i < end; ++i) all = op(all, values[i]);
    barrier.arrive_and_wait();
    return all;
  }
  Meeting& meeting_;
  int lane_;
};

// Calls body with the loss of these settings.
template <class Body>
void visit_loss(const RankLossParams& p, const Body& body) {
  using namespace kernels::rank;
  REQUIRE((visit_pointwise<double>(p, body) || visit_pairs<double>(p, body) ||
           visit_pair_sums<double>(p, body) || visit_softmax<double>(p, body) ||
           visit_likelihood<double>(p, body) || visit_soft_ranks<double>(p, body) ||
           visit_neural_sort<double>(p, body)));
}

struct OneList {
  RankBatchValues values;
  std::vector<double> work, gradient;
  std::vector<int> orders;
  int64_t step = 3;
  bool bad_label = false;

  RankList<double> list(int arrays) {
    const int n = static_cast<int>(values.rows());
    work.assign(static_cast<size_t>(arrays * n), 7);
    orders.assign(static_cast<size_t>(2 * n), 7);
    gradient.assign(values.scores.size(), 7);
    return {n,
            static_cast<int>(values.columns),
            0,
            values.scores.data(),
            values.labels.data(),
            values.weights.data(),
            gradient.data(),
            work.data(),
            orders.data(),
            nullptr,
            {5, &step, 9},
            &bad_label};
  }
};

}  // namespace

TEST_CASE("a team of threads computes the ranking losses of one thread", "[rank][losses]") {
  std::vector<RankLossParams> all;
  for (int loss = 0; loss <= static_cast<int>(RankLoss::neural_ndcg); ++loss) {
    RankLossParams p{.loss = static_cast<RankLoss>(loss), .iterations = 4};
    all.push_back(p);
    p.mean = 1;
    p.truncation = 5;
    p.normalise = 1;
    p.distance_part = 2;
    p.terms = 3;
    p.epsilon = 1;
    p.positions = 1;
    p.random_ties = 1;
    p.targets = 1;
    all.push_back(p);
    if (p.loss == RankLoss::lambda_precision) all[all.size() - 2].truncation = 3;
  }
  for (const RankLossParams& p : all)
    for (const int64_t n : {2, 3, 13, 40}) {
      INFO("loss " << static_cast<int>(p.loss) << ", truncation " << p.truncation << ", n " << n);
      OneList alone{random_batch({.sizes = {n}, .weighted = true}, LossSpec::parse("mse"), 5)};
      // One score serves as two outputs.
      const bool several =
          p.loss == RankLoss::ordinal || p.loss == RankLoss::prank || p.loss == RankLoss::mcrank;
      if (several) {
        alone.values.columns = 5;
        for (int64_t i = n; i < 5 * n; ++i)
          alone.values.scores.push_back(alone.values.scores[static_cast<size_t>(i - n)] + 0.1);
      }
      alone.values.labels[0] = 0;
      alone.values.labels[1] = 2;
      OneList together = alone;
      visit_loss(p, [&](const auto& loss) {
        int arrays = 0;
        if constexpr (requires { loss.arrays(); })
          arrays = loss.arrays();
        else
          arrays = loss.kArrays;
        kernels::cpu::LoneTeam<double> lone;
        const double expected = loss(lone, alone.list(arrays));
        const auto check_team = [&]<int kMembers>(std::integral_constant<int, kMembers>) {
          const RankList<double> list = together.list(arrays);
          Meeting meeting(kMembers);
          double values[kLanes];
          {
            std::vector<std::jthread> threads;
            for (int lane = 0; lane < kLanes; ++lane)
              threads.emplace_back([&, lane] {
                ThreadTeam<kMembers> team(meeting, lane);
                values[lane] = loss(team, list);
                kernels::rank::scale_gradient(team, list, 1.0);
              });
          }
          for (const double value : values) {
            CHECK(value == values[0]);
            CHECK(value == Approx(expected).epsilon(1e-10).margin(1e-12));
          }
          for (size_t i = 0; i < alone.gradient.size(); ++i)
            CHECK(together.gradient[i] == Approx(alone.gradient[i]).epsilon(1e-9).margin(1e-11));
        };
        check_team(std::integral_constant<int, 1>());
        check_team(std::integral_constant<int, 2>());
        check_team(std::integral_constant<int, kLanes>());
      });
    }
}
