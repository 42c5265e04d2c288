#include <binade/heads/decoding/speculative_decoder.h>

#include <utility>

#include <binade/autograd/ops.h>
#include <binade/core/error.h>
#include <binade/core/kernels/drafts.h>

#if BINADE_HAVE_CUDA
#include <binade/autograd/observer.h>
#include <binade/core/cuda/graph.h>
#endif

namespace binade::heads::decoding {
namespace {

// Eager steps before the capture: they time and choose algorithms and fill the pool.
[[maybe_unused]] constexpr int kEagerSteps = 2;

infer::DecoderOptions decoder_options(const AcceptanceRule& rule, const ProposerNeeds& needs,
                                      const SpeculativeOptions& options) {
  infer::DecoderOptions result;
  result.slots = options.slots;
  result.capacity = options.capacity;
  result.spare = kMostNodes - 1;
  result.streams = needs.residual_layers;
  result.choice.sampling = rule.plain();
  result.choice.sampling.seed = options.seed;
  result.choice.stop_ids = options.stop_ids;
  return result;
}

// Rows of x (R, dim) by index (…) i32: (…, dim).
Array picked_rows(const Array& x, const Array& index) {
  const Tensor rows = index_select(Tensor(x), 0, Tensor(index.view({index.numel()})));
  if (index.dims() == 1) return rows.array();
  return rows.array().view({index.size(0), index.size(1), x.size(1)});
}

}  // namespace

struct SpeculativeDecoder::Graph {
#if BINADE_HAVE_CUDA
  cuda::CapturedGraph captured;
#endif
};

struct SpeculativeDecoder::TreeArrays {
  TreeArrays(const DraftTree& tree, Device device) {
    const auto nodes = tree.size();
    parents = Array::from(tree.parents(), {nodes}, device);
    shape.depths = Array::from(tree.depths(), {nodes}, device);
    shape.visible = Array::from(tree.visible(), {nodes}, device);
  }
  Array parents;
  infer::TokenTree shape;
};

SpeculativeDecoder::~SpeculativeDecoder() = default;

SpeculativeDecoder::SpeculativeDecoder(const nn::CausalLm& model, Proposer& proposer,
                                       const AcceptanceRule& rule,
                                       const SpeculativeOptions& options)
    : proposer_(proposer),
      rule_(rule),
      needs_(proposer.needs()),
      seed_(options.seed),
      capture_(options.capture),
      decoder_(model, decoder_options(rule, needs_, options)) {}

void SpeculativeDecoder::begin(const std::vector<int32_t>& slots,
                               const std::vector<std::vector<int32_t>>& prompts,
                               std::vector<infer::SlotStates::Start> starts) {
  const NoGrad no_grad;
  const infer::Decoder::Prompts read = decoder_.begin(slots, prompts, std::move(starts));
  Observation seen;
  seen.slots = slots;
  seen.prompts = true;
  seen.tokens = read.ids;
  seen.counts = read.lengths;
  seen.next = index_select(Tensor(choices().tokens()), 0, Tensor(read.slots)).array();
  if (needs_.hidden) seen.hidden = read.hidden.array();
  if (needs_.last) seen.last = read.last.array();
  for (const Tensor& stream : decoder_.streams()) seen.residuals.push_back(stream.array());
  if (needs_.text) {
    const auto states = infer::SlotStates::read(choices().packed());
    for (size_t row = 0; row < slots.size(); ++row) {
      const infer::SlotStates::Seen& state = states[static_cast<size_t>(slots[row])];
      seen.text.emplace_back();
      if (!state.running) continue;
      seen.text.back() = prompts[row];
      seen.text.back().push_back(state.token);
    }
  }
  proposer_.observe(seen);
}

void SpeculativeDecoder::step() {
#if BINADE_HAVE_CUDA
  const bool repeats =
      !needs_.text && proposer_.repeats() && rule_.judges_on_device({.drawn = drawn_});
  if (capture_ && repeats && model().device().is_cuda() && !cuda::is_capturing() &&
      current_op_observer() == nullptr && eager_steps_ >= kEagerSteps) {
    if (!graph_) {
      auto graph = std::make_unique<Graph>();
      graph->captured = cuda::CapturedGraph::capture([this] { queue_pass(); }, model().device());
      graph_ = std::move(graph);
    }
    graph_->captured.replay();
    return;
  }
#endif
  ++eager_steps_;
  queue_pass();
}

// The report's memory and the tree's arrays, anew where the drafts have another form than before.
void SpeculativeDecoder::prepare(const Drafts& drafts) {
  PassLayout layout = PassLayout::of(drafts);
  check(layout.slots == slots(), "there are ", slots(), " slots, but drafts for ", layout.slots);
  if (parts_ && layout == layout_) return;
  const Device device = model().device();
  check(graph_ == nullptr && drafts.tokens.device() == device,
        "drafts must be on the model's device, and of one form once a pass is captured");
  if (layout.tree) tree_ = std::make_unique<TreeArrays>(*layout.tree, device);
  report_ = Array::empty({layout.numbers()}, DType::i32, device);
  parts_ = std::make_unique<PassParts>(layout, report_);
  layout_ = std::move(layout);
}

void SpeculativeDecoder::queue_pass() {
  const NoGrad no_grad;
  const Device device = model().device();
  infer::SlotStates& states = choices();
  const BatchDraws draws{seed_, states.drawn(), states.places()};
  const Drafts drafts = proposer_.propose(draws);
  prepare(drafts);
  drawn_ = drafts.drawn;

  const Shape shape = drafts.tokens.shape();
  kernels::DraftNodes nodes{drafts.tokens, layout_.tree ? tree_->parents : drafts.parents};
  infer::TokenTree tree;
  if (layout_.tree) {
    tree = tree_->shape;
  } else {
    tree.depths = Array::empty(shape, DType::i32, device);
    tree.visible = Array::empty(shape, DType::i64, device);
    BINADE_DISPATCH(device, tree_shapes(drafts.parents, tree.depths, tree.visible));
    parts_->parents.copy_from(drafts.parents);
  }
  const Array ids = Array::empty(shape, DType::i32, device);
  BINADE_DISPATCH(device, feedable_tokens(drafts.tokens, ids));

  const Tensor hidden = reshape(decoder_.run(Tensor(ids), tree), {-1, model().config().dim});
  const Array logits = model().logits(hidden).array();
  const kernels::AcceptedPaths accepted{parts_->nodes, parts_->counts, parts_->next};
  rule_.judge(drafts, nodes, logits, states, draws, accepted);
  const Array fed = Array::empty(parts_->nodes.shape(), DType::i32, device);
  const kernels::NotedPaths noted{parts_->kept, parts_->status, fed,
                                  Array::empty(fed.shape(), DType::i32, device),
                                  Array::empty({slots()}, DType::i32, device)};
  states.note(nodes, accepted, noted);
  decoder_.accept(parts_->nodes, parts_->kept);
  parts_->tokens.copy_from(drafts.tokens);
  if (parts_->guesses.defined())
    parts_->guesses.copy_from(drafts.guesses.view(parts_->guesses.shape()));
  report_.bump_version();
  proposer_.observe(observation(hidden, noted));
}

// hidden (S·N, dim)
Observation SpeculativeDecoder::observation(const Tensor& hidden,
                                            const kernels::NotedPaths& noted) {
  Observation seen;
  seen.tokens = noted.fed;
  seen.counts = noted.kept;
  seen.nodes = parts_->nodes;
  seen.next = choices().tokens();
  if (needs_.hidden) seen.hidden = picked_rows(hidden.array(), noted.rows);
  if (needs_.last) seen.last = picked_rows(hidden.array(), noted.last);
  for (const Tensor& stream : decoder_.streams())
    seen.residuals.push_back(picked_rows(reshape(stream, hidden.shape()).array(), noted.rows));
  if (needs_.text) {
    const PassReport report(layout_, report_.to(Device::cpu()));
    for (int64_t slot = 0; slot < slots(); ++slot) {
      seen.text.emplace_back();
      const std::vector<int32_t>& fresh = report.emitted(slot);
      if (!report.running(slot)) continue;
      seen.text.back().push_back(report.proposal(slot).tokens[0]);
      seen.text.back().insert(seen.text.back().end(), fresh.begin(), fresh.end());
    }
  }
  return seen;
}

}  // namespace binade::heads::decoding
