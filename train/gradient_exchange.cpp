#include <binade/train/gradient_exchange.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include <binade/core/kernels/add_lanes.h>

namespace binade::train {

namespace {

using Block = dist::Communicator::Block;
using Member = optim::FlatGroup::Member;

// Slabs that are being sent while others are written.
constexpr size_t kSlabsOnTheirWay = 2;

Block block_of(const Array& array) {
  return {array.data(), array.bytes()};
}

// What b has of a; empty at an end of b if nothing.
dist::Slice common(dist::Slice a, dist::Slice b) {
  const int64_t begin = std::clamp(a.begin, b.begin, b.end);
  return {begin, std::clamp(a.end, begin, b.end)};
}

// Where the elements of a member lie, with the gap behind them.
dist::Slice place_of(const optim::FlatGroup& group, size_t m) {
  const std::vector<Member>& members = group.members();
  return {members[m].offset, m + 1 < members.size() ? members[m + 1].offset : group.numel()};
}

// "h.0.attn" of "h.0.attn.q.weight": layers of one input, whose gradients may be one matmul's, have
// it in common.
std::string owner_of(const Member& member) {
  const std::string& name = member.parameter.name;
  const size_t layer =
      name.rfind('.', name.rfind('.') == std::string::npos ? 0 : name.rfind('.') - 1);
  return layer == std::string::npos ? name : name.substr(0, layer);
}

// Runs of members, of about so many elements, that leave no owner's members apart.
std::vector<dist::Slice> runs(const optim::FlatGroup& group, int64_t elements) {
  std::vector<dist::Slice> all;
  for (size_t m = 0; m < group.members().size(); ++m) {
    const dist::Slice place = place_of(group, m);
    const bool full = !all.empty() && all.back().end - all.back().begin >= elements;
    const bool together = m > 0 && owner_of(group.members()[m]) == owner_of(group.members()[m - 1]);
    if (all.empty() || (full && !together)) {
      all.push_back(place);
    } else {
      all.back().end = place.end;
    }
  }
  return all;
}

}  // namespace

GradientExchange::GradientExchange(dist::World& world, dist::Communicator& ranks, SideQueue& queue,
                                   SideQueue& sums, const ExposedTime& time,
                                   optim::Optimizer& optimizer, int64_t bucket)
    : world_(world),
      ranks_(ranks),
      queue_(queue),
      sums_(sums),
      time_(time),
      optimizer_(optimizer),
      life_(optimizer.life()),
      link_(std::make_shared<Link>(Link{*this})) {
  for (size_t g = 0; g < optimizer.groups().size(); ++g) {
    const optim::FlatGroup& group = optimizer.groups()[g];
    const dist::Shards& shards = shards_.emplace_back(group.numel(), ranks.size(), bucket);
    const dist::Slice first = shards.slice(0, 0);
    place_ = std::max(place_, (first.end - first.begin) * size_of(group.dtype()));
    if (group.has_grad_buffer()) {
      for (int64_t index = 0; index < shards.buckets(); ++index)
        add_parcel(g, shards.bucket(index));
    } else {
      for (const dist::Slice& run : runs(group, bucket)) add_parcel(g, run);
    }
  }
  received_ =
      ranks.open_window(Array::empty({2 * place_ * ranks.size()}, DType::u8, ranks.device()));
  // Until the order is learned: from the end of each group on.
  order_.resize(parcels_.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(), [this](size_t a, size_t b) {
    const auto depth = [this](const Parcel& parcel) {
      return static_cast<double>(parcel.elements.begin) /
             static_cast<double>(group_of(parcel).numel());
    };
    return depth(parcels_[a]) > depth(parcels_[b]);
  });
  guard_leaves();
}

GradientExchange::~GradientExchange() = default;

void GradientExchange::add_parcel(size_t g, dist::Slice elements) {
  Parcel& parcel = parcels_.emplace_back(Parcel{g, elements, {}, {}});
  const optim::FlatGroup& group = optimizer_.groups()[g];
  for (size_t m = 0; m < group.members().size(); ++m) {
    const dist::Slice here = common(place_of(group, m), elements);
    if (here.begin == here.end) continue;
    parcel.members.push_back(m);
    parcels_of_[group.members()[m].parameter.parameter->tensor().state().get()].push_back(
        parcels_.size() - 1);
  }
}

void GradientExchange::guard_leaves() {
  for (const optim::FlatGroup& group : optimizer_.groups())
    for (const Member& member : group.members()) {
      const Tensor& tensor = member.parameter.parameter->tensor();
      set_grad_guard(tensor, [link = std::weak_ptr(link_), name = member.parameter.name,
                              parcels = parcels_of_.at(tensor.state().get())] {
        if (const auto there = link.lock()) there->exchange.before_write(parcels, name);
      });
    }
}

void GradientExchange::before_write(const std::vector<size_t>& parcels,
                                    const std::string& parameter) {
  for (const size_t index : parcels) {
    Parcel& parcel = parcels_[index];
    check(!parcel.sent, "parameter ", parameter, " gets a gradient in a backward pass that was ",
          "said to bring it nothing more, and ranks have exchanged it: an op's backward function ",
          "reaches it although it is none of the op's inputs; make it one");
    wait(parcel.way);  // of the round before
    if (!group_of(parcel).has_grad_buffer() && !parcel.memory.defined()) give_memory(parcel);
  }
}

void GradientExchange::wait(Way& way) {
  const Way waited = std::exchange(way, {});
  if (waited.queue != nullptr) time_.measure([&] { waited.queue->wait(waited.ticket); });
}

void GradientExchange::give_memory(Parcel& parcel) {
  const optim::FlatGroup& group = group_of(parcel);
  const DType dtype = group.dtype();
  const int64_t elements = parcel.elements.end - parcel.elements.begin;
  if (slabs_.size() > kSlabsOnTheirWay)
    for (auto slab = slabs_.begin(); slab != slabs_.end(); ++slab) {
      if (slab->memory.dtype() != dtype || slab->memory.numel() < elements) continue;
      wait(slab->way);
      parcel.memory = slab->memory;
      slabs_.erase(slab);
      break;
    }
  if (!parcel.memory.defined()) {
    int64_t most = 0;  // so that any parcel may have it later
    for (const Parcel& other : parcels_)
      if (group_of(other).dtype() == dtype && !group_of(other).has_grad_buffer())
        most = std::max(most, other.elements.end - other.elements.begin);
    parcel.memory = Array::empty({most}, dtype, group.device());
  }
  for (const size_t m : parcel.members) {
    const Member& member = group.members()[m];
    const int64_t begin = member.offset - parcel.elements.begin, end = begin + member.numel;
    member.parameter.parameter->tensor().bind_grad(
        parcel.memory.slice(0, begin, end).view(member.parameter.parameter->shape()));
    const int64_t gap = place_of(group, m).end - parcel.elements.begin;
    if (gap > end) parcel.memory.slice(0, end, gap).zero();
  }
}

Array GradientExchange::gradients(const Parcel& parcel) const {
  const auto [begin, end] = parcel.elements;
  return parcel.memory.defined() ? parcel.memory.slice(0, 0, end - begin)
                                 : optimizer_.groups()[parcel.group].grad().slice(0, begin, end);
}

void GradientExchange::begin_round(bool last, const Array& inv_scale) {
  first_ = !optimizer_.is_sum_begun();
  last_ = last;
  inv_scale_ = inv_scale;
  sent_ = 0;
  turn_ = 0;  // everywhere, whatever became of the round before
  for (Parcel& parcel : parcels_) {
    parcel.open = 1;  // until the pass begins
    parcel.sent = false;
  }
  for (optim::FlatGroup& group : optimizer_.groups()) group.make_sums();
}

void GradientExchange::begin(const TensorList& leaves) {
  to_come_ = leaves.size();
  for (Parcel& parcel : parcels_) parcel.open = 0;
  for (const Tensor& leaf : leaves) {
    const auto found = parcels_of_.find(leaf.state().get());
    if (found == parcels_of_.end()) continue;
    for (const size_t parcel : found->second) ++parcels_[parcel].open;
  }
  send_complete();
}

void GradientExchange::complete(const Tensor& leaf) {
  --to_come_;
  const auto found = parcels_of_.find(leaf.state().get());
  if (found == parcels_of_.end()) return;
  for (const size_t parcel : found->second)
    if (--parcels_[parcel].open == 0 && !learned_) complete_.push_back(parcel);
  send_complete();
}

void GradientExchange::send_complete() {
  while (sent_ < order_.size() && parcels_[order_[sent_]].open == 0)
    send(parcels_[order_[sent_++]]);
}

void GradientExchange::end_round() {
  to_come_ = 0;
  while (sent_ < order_.size()) send(parcels_[order_[sent_++]]);
  for (Parcel& parcel : parcels_) parcel.sent = false;
  optimizer_.note_accumulated();
}

void GradientExchange::zero_missing(Parcel& parcel) {
  const optim::FlatGroup& group = group_of(parcel);
  for (const size_t m : parcel.members) {
    const Member& member = group.members()[m];
    const Tensor& tensor = member.parameter.parameter->tensor();
    if (!member.frozen() && tensor.grad().defined()) continue;
    tensor.clear_grad_buffer();
    wait(parcel.way);
    if (!group.has_grad_buffer() && !parcel.memory.defined()) give_memory(parcel);
    const dist::Slice here = common({member.offset, member.offset + member.numel}, parcel.elements);
    gradients(parcel)
        .slice(0, here.begin - parcel.elements.begin, here.end - parcel.elements.begin)
        .zero();
  }
}

GradientExchange::Piece GradientExchange::piece_of(const Parcel& parcel, int64_t bucket) const {
  const dist::Shards& shards = shards_[parcel.group];
  const Array values = gradients(parcel);
  const auto part = [&](int rank) {
    const dist::Slice owned = common(shards.slice(bucket, rank), parcel.elements);
    return values.slice(0, owned.begin - parcel.elements.begin, owned.end - parcel.elements.begin);
  };
  const Array own = part(ranks_.rank()), &received = received_->memory();
  Piece piece;
  piece.received = received_;
  const int64_t begin = static_cast<int64_t>(turn_) * ranks_.size() * place_;
  piece.place = begin + ranks_.rank() * place_;
  piece.first = first_;
  const optim::FlatGroup& group = optimizer_.groups()[parcel.group];
  const dist::Slice elements = common(shards.slice(bucket, ranks_.rank()), parcel.elements);
  piece.sums = group.sums(elements);
  if (is_measured(group)) {
    piece.inv_scale = inv_scale_;
    piece.statistics = group.statistics(elements);
  }
  for (int peer = 0; peer < ranks_.size(); ++peer) {
    piece.to.push_back(block_of(part(peer)));
    auto* place = static_cast<std::byte*>(received.data()) + begin + peer * place_;
    piece.lanes.push_back(
        peer == ranks_.rank()
            ? own
            : Array::from_blob(place, own.shape(), own.dtype(), own.device(), received.storage()));
    piece.from.push_back(block_of(piece.lanes.back()));
    if (!last_ || group.shared()) continue;
    const dist::Slice share = shards.slice(bucket, peer);
    piece.whole = group.accumulated();
    piece.shares.push_back(block_of(piece.whole.slice(0, share.begin, share.end)));
  }
  return piece;
}

// What is queued may run when this and the optimizer are gone, as an exception may have ended the
// pass: it touches nothing but the queues and the piece, which holds the memory.
GradientExchange::Way GradientExchange::queue_piece(Piece piece) {
  const auto shared = std::make_shared<const Piece>(std::move(piece));
  const SideQueue::Ticket read = std::exchange(read_[turn_], 0);
  const SideQueue::Ticket brought = queue_.run([&ranks = ranks_, &sums = sums_, shared, read] {
    sums.lead(read);
    ranks.all_to_all(shared->to, shared->from, *shared->received, shared->place);
  });
  const SideQueue::Ticket added = sums_.run([&queue = queue_, shared, brought] {
    queue.lead(brought);
    BINADE_DISPATCH(shared->sums.device(), add_lanes(shared->lanes, shared->sums, shared->first,
                                                     shared->inv_scale, shared->statistics));
  });
  read_[turn_] = added;
  turn_ = 1 - turn_;
  if (!shared->whole.defined()) return {&sums_, added};
  return {&queue_, queue_.run([&ranks = ranks_, &sums = sums_, shared, added] {
            sums.lead(added);
            ranks.all_gather(shared->shares);
          })};
}

void GradientExchange::send(Parcel& parcel) {
  wait(parcel.way);
  zero_missing(parcel);
  const dist::Shards& shards = shards_[parcel.group];
  const auto queue_pieces = [&] {
    for (int64_t bucket = 0; bucket < shards.buckets(); ++bucket) {
      const dist::Slice here = common(shards.bucket(bucket), parcel.elements);
      if (here.begin < here.end) parcel.way = queue_piece(piece_of(parcel, bucket));
    }
  };
  if (queue_.is_beside()) {
    queue_pieces();
  } else {
    time_.measure(queue_pieces);
  }
  parcel.sent = true;
  ++counts_.sent;
  if (to_come_ > 0) ++counts_.early;
  if (parcel.memory.defined())
    slabs_.push_back({std::exchange(parcel.memory, {}), std::exchange(parcel.way, {})});
}

// That of rank 0, which did not reach every parcel perhaps; those come last.
void GradientExchange::learn_order() {
  std::vector<bool> known(parcels_.size(), false);
  std::vector<int64_t> order;
  const auto add = [&](size_t parcel) {
    if (!known[parcel]) order.push_back(static_cast<int64_t>(parcel));
    known[parcel] = true;
  };
  for (const size_t parcel : complete_) add(parcel);
  for (const size_t parcel : order_) add(parcel);
  world_.communicator().broadcast(
      {order.data(), std::ssize(order) * static_cast<int64_t>(sizeof(int64_t))});
  order_.assign(order.begin(), order.end());
  complete_.clear();
  learned_ = true;
}

void GradientExchange::free_memory() {
  for (Parcel& parcel : parcels_) parcel.memory = {};
  slabs_.clear();
}

void GradientExchange::finish() {
  time_.measure([&] {
    queue_.wait_for_all();
    sums_.wait_for_all();
  });
  for (Parcel& parcel : parcels_) parcel.way = {};
  for (Slab& slab : slabs_) slab.way = {};
  read_ = {};
  for (const optim::FlatGroup& group : optimizer_.groups()) {
    group.accumulated().bump_version();
    if (is_measured(group)) group.note_measured(inv_scale_);
  }
  if (!learned_) learn_order();
}

}  // namespace binade::train
