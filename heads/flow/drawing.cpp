#include <binade/heads/flow/drawing.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include <binade/autograd/create.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/split_rules.h>
#include <binade/core/random.h>
#include <binade/heads/flow/training.h>
#include <binade/infer/slot_cache.h>

namespace binade::heads::flow {

namespace {

using data::PartKind;
using data::Sample;

bool is_image(const data::Part& part) {
  return part.kind == PartKind::vit || part.kind == PartKind::vae;
}
bool has_images(const Sample& sample) {
  return std::any_of(sample.begin(), sample.end(), is_image);
}

Sample without_last_text(Sample sample) {
  for (size_t i = sample.size(); i-- > 0;)
    if (sample[i].kind == PartKind::text) {
      sample[i].kind = PartKind::no_text;
      break;
    }
  return sample;
}
Sample without_images(Sample sample) {
  for (data::Part& part : sample)
    if (is_image(part)) part.kind = PartKind::no_image;
  return sample;
}

// Throws Error for tokens and positions of a pass that the model does not have: on a GPU they would
// be read as zeros.
void check_readable(const nn::MotModel& model, const Array& ids, const Array& positions) {
  const auto check_below = [](const Array& numbers, int64_t count, const char* what) {
    const auto* const first = numbers.data<int32_t>();
    for (int64_t i = 0; i < numbers.numel(); ++i)
      check(first[i] >= 0 && first[i] < count, "a context has the ", what, ' ', first[i],
            ", the model ", count, " of them");
  };
  check_below(ids, model.config().vocab_size, "token");
  check_below(positions, model.config().max_positions, "position");
}

// Contexts in a cache, a row each, and where they go on.
class Context {
 public:
  // `room`: slots of the passes that follow.
  Context(const Artist& artist, const std::vector<Sample>& contexts, int64_t room)
      : artist_(artist), ends_(contexts.size()) {
    data::RandomStream none(0, 0);
    const data::PackedSlots packed = data::pack_each(contexts, artist.layout, none, &ends_);
    cache_ = std::make_unique<infer::SlotCache>(artist.model.config().layers, std::ssize(contexts),
                                                packed.slots.size(2) + room, artist.device);
    if (packed.used == 0) return;  // nothing was said
    check_readable(artist.model, packed.ids, packed.positions);
    const train::Named<Tensor> batch = on_device(packed, artist.device);
    forward(inputs_of(batch, batch.at("latents"), times_of(batch.at("logit_times"), 1)));
    cache_->keep();
  }

  std::vector<data::SampleEnd>& ends() { return ends_; }
  infer::SlotCache& cache() { return *cache_; }
  nn::Halves forward(nn::MotInputs in) {
    in.store = cache_.get();
    cache_->begin(in.slots);
    return artist_.model.forward(in);
  }

 private:
  const Artist& artist_;
  std::vector<data::SampleEnd> ends_;
  std::unique_ptr<infer::SlotCache> cache_;
};

// One branch of guidance: the velocity at latents, given its contexts.
class Branch {
 public:
  Branch(const Artist& artist, const std::vector<Sample>& contexts, const Array& canvas)
      : artist_(artist), context_(artist, contexts, artist.layout.latents.tokens(canvas) + 2) {
    data::RandomStream none(0, 0);
    const std::vector<Sample> drawn(contexts.size(), {data::image_part(PartKind::noise, canvas)});
    const data::PackedSlots packed = data::pack_each(drawn, artist.layout, none, &context_.ends());
    check_readable(artist.model, packed.ids, packed.positions);
    batch_ = on_device(packed, artist.device);
  }

  // x (N, tokens, values) f32 at time t.
  Tensor velocity(const Tensor& x, double t) {
    nn::MotInputs in = inputs_of(batch_, x, batch_.at("noised") * t);
    in.patches = in.patch_places = in.patch_images = in.patch_slots = {};
    return artist_.model.velocity(context_.forward(in).generation);
  }

 private:
  const Artist& artist_;
  Context context_;
  train::Named<Tensor> batch_;
};

std::vector<Sample> each(const std::vector<Sample>& samples, Sample (*change)(Sample)) {
  std::vector<Sample> changed;
  std::transform(samples.begin(), samples.end(), std::back_inserter(changed), change);
  return changed;
}

}  // namespace

std::vector<Array> draw(const Artist& artist, const std::vector<Sample>& contexts, int64_t height,
                        int64_t width, const DrawOptions& options) {
  check(!contexts.empty(), "there is nothing to draw");
  const bool images = has_images(contexts.front());
  for (const Sample& context : contexts)
    check(has_images(context) == images,
          "contexts that are drawn together have images, all of them, or none has");
  const std::vector<double> times = drawing_times(options.points, options.shift);
  const NoGrad off;
  const amp::Autocast scope(artist.preset);
  const data::PatchGrid& grid = artist.layout.latents;
  const Array canvas = Array::zeros({grid.channels, height, width}, DType::f32);

  Branch all(artist, contexts, canvas);
  std::optional<Branch> no_text, no_images;
  if (options.guidance.text_scale > 1) {
    no_text.emplace(artist, each(contexts, without_last_text), canvas);
    if (images) no_images.emplace(artist, each(contexts, without_images), canvas);
  }
  const RandomState before = RandomState::current();
  RandomState::current().set_seed(options.seed);
  Tensor x = randn({std::ssize(contexts), grid.tokens(canvas), grid.values()}, artist.device);
  RandomState::current() = before;
  for (size_t i = 0; i + 1 < times.size(); ++i) {
    const double t = times[i];
    Tensor v = all.velocity(x, t);
    if (options.guidance.at(t))
      v = guided(v, no_text->velocity(x, t), no_images ? no_images->velocity(x, t) : Tensor(),
                 options.guidance);
    x = x - v * (t - times[i + 1]);
  }
  const Array drawn = x.array().to(Device::cpu()).contiguous();
  check(std::all_of(drawn.data<float>(), drawn.data<float>() + drawn.numel(),
                    [](float value) { return std::isfinite(value); }),
        "the drawing has latents that are not finite; the weights, or the precision '",
        artist.preset.name, "', do not serve this model");
  std::vector<Array> pictures;
  for (int64_t i = 0; i < drawn.size(0); ++i)
    pictures.push_back(data::from_patches(drawn.select(0, i), grid.patch, grid.channels, width));
  return pictures;
}

namespace {

// Texts that are written token by token, one a row.
class Writing {
 public:
  Writing(const Artist& artist, const std::vector<Sample>& contexts, int64_t most)
      : artist_(artist),
        context_(artist, contexts, most + 1),
        next_(contexts.size(), artist.layout.text_begin),
        texts_(contexts.size()),
        done_(contexts.size()) {
    check_readable(artist.model, Array::from(next_, {std::ssize(next_)}),
                   Array::zeros({0}, DType::i32));
  }

  // Reads the newest token of each row, and chooses the next. False when all texts have ended, or
  // one has no position left.
  bool step() {
    for (const data::SampleEnd& at : context_.ends())
      if (at.position >= artist_.model.config().max_positions) return false;
    const nn::Halves hidden = context_.forward(pass());
    context_.cache().keep();
    const Tensor chosen = argmax(artist_.model.logits(hidden.understanding), -1);
    const std::vector<int64_t> ids = chosen.array().to(Device::cpu()).to_vector<int64_t>();
    for (size_t i = 0; i < texts_.size(); ++i) {
      next_[i] = static_cast<int32_t>(ids[i]);
      done_[i] = done_[i] || next_[i] == artist_.layout.text_end;
      if (!done_[i]) texts_[i].push_back(next_[i]);
    }
    return std::any_of(done_.begin(), done_.end(), [](bool done) { return !done; });
  }
  std::vector<std::vector<int32_t>> texts() const { return texts_; }

 private:
  nn::MotInputs pass() {
    std::vector<int32_t> slots, positions;
    for (size_t i = 0; i < texts_.size(); ++i) {
      data::SampleEnd& at = context_.ends()[i];
      const int32_t sample = done_[i] ? -1 : at.sample;  // a text that has ended takes a spare slot
      for (const int32_t field : {sample, at.order++, at.split, int32_t{kernels::kCausalSplit}})
        slots.push_back(field);
      positions.push_back(at.position++);
    }
    const int64_t rows = std::ssize(texts_);
    const Device device = artist_.device;
    return {.ids = Tensor::from(next_, {rows, 1}, device),
            .slots = Tensor::from(slots, {rows, kernels::kSlotFields, 1}, device),
            .positions = Tensor::from(positions, {rows, 1}, device)};
  }

  const Artist& artist_;
  Context context_;
  std::vector<int32_t> next_;
  std::vector<std::vector<int32_t>> texts_;
  std::vector<bool> done_;
};

}  // namespace

std::vector<std::vector<int32_t>> answer(const Artist& artist, const std::vector<Sample>& contexts,
                                         int64_t most) {
  check(!contexts.empty() && most > 0, "there is nothing to answer");
  const NoGrad off;
  const amp::Autocast scope(artist.preset);
  Writing writing(artist, contexts, most);
  for (int64_t i = 0; i < most && writing.step(); ++i) {
  }
  return writing.texts();
}

}  // namespace binade::heads::flow
