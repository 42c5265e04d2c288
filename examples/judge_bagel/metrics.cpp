#include "metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "frechet.h"

namespace binade::examples {

namespace {

constexpr uint64_t kSeed = 99;

// How often both lists agree.
double agreement(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  double same = 0;
  for (size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
  return same / static_cast<double>(std::max<size_t>(a.size(), 1));
}

struct Labels {
  std::vector<int64_t> classes, colors;
};
Labels labels_of(const Items& items) {
  Labels labels;
  for (const Item& item : items) {
    labels.classes.push_back(item.item_class);
    labels.colors.push_back(item.color);
  }
  return labels;
}

heads::flow::DrawOptions scaled(double text_scale) {
  heads::flow::DrawOptions options;
  options.guidance.text_scale = text_scale;
  return options;
}

std::vector<Array> draw_items(const heads::flow::Artist& artist,
                              const std::vector<data::Sample>& contexts, int64_t items,
                              const heads::flow::DrawOptions& options) {
  return draw_pictures(artist, contexts, kItemSize, kItemSize * items, options);
}

// Item `which` of a picture of several.
Array cut(const Array& picture, int64_t which) {
  return picture.slice(2, which * kItemSize, (which + 1) * kItemSize).contiguous();
}

// Share of drawings of which every item is what it should be.
double all_right(const Exam& exam, const std::vector<Items>& wanted,
                 const std::vector<Array>& pictures) {
  std::vector<bool> right(wanted.size(), true);
  for (int64_t which = 0; which < std::ssize(wanted.front()); ++which) {
    std::vector<Array> parts;
    for (const Array& picture : pictures) parts.push_back(cut(picture, which));
    const Verdict verdict = judge(exam.judge, parts, exam.device);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Item& item = wanted[i][static_cast<size_t>(which)];
      right[i] =
          right[i] && verdict.classes[i] == item.item_class && verdict.colors[i] == item.color;
    }
  }
  return static_cast<double>(std::count(right.begin(), right.end(), true)) /
         static_cast<double>(right.size());
}

double mean_square(const Array& a, const Array& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double gap = a.data<float>()[i] - b.data<float>()[i];
    sum += gap * gap / 4;  // of pixels in [0, 1]
  }
  return sum / static_cast<double>(a.numel());
}

Array clamped(const Array& picture) {
  const Array out = picture.clone();
  std::transform(out.data<float>(), out.data<float>() + out.numel(), out.data<float>(),
                 [](float v) { return std::clamp(v, -1.0f, 1.0f); });
  return out;
}

}  // namespace

Exam make_exam(const World& world, const Judge& network, Device device, int64_t count) {
  data::RandomStream random(kSeed, 0);
  std::vector<int64_t> images(static_cast<size_t>(std::min(world.size(), 10 * count)));
  std::iota(images.begin(), images.end(), 0);
  const Tinted real = tinted(world, images, random, /*mirror=*/false);
  Exam exam{world, network, device, count, judge(network, real.pictures, device)};
  return exam;
}

Metrics judge_itself(const Exam& exam) {
  // The same draws as make_exam's.
  data::RandomStream random(kSeed, 0);
  std::vector<int64_t> images(exam.real.classes.size());
  std::iota(images.begin(), images.end(), 0);
  const Labels labels = labels_of(tinted(exam.world, images, random, false).items);
  const int64_t half = std::min(exam.count, exam.real.features.size(0) / 2);
  return {{"judge_class", agreement(labels.classes, exam.real.classes)},
          {"judge_color", agreement(labels.colors, exam.real.colors)},
          {"frechet_floor", frechet_distance(exam.real.features.slice(0, 0, half),
                                             exam.real.features.slice(0, half))}};
}

Metrics judge_drawings(const Exam& exam, const heads::flow::Artist& artist,
                       std::vector<Array>& sheet) {
  Metrics metrics;
  const Items wanted = all_items(exam.count);
  const Labels labels = labels_of(wanted);
  std::vector<data::Sample> contexts;
  for (const Item& item : wanted) contexts.push_back(draw_context(ids_of(caption({item}))));
  for (const int scale : {1, 2, 4}) {
    const std::vector<Array> pictures = draw_items(artist, contexts, 1, scaled(scale));
    const Verdict verdict = judge(exam.judge, pictures, exam.device);
    double unseen = 0, unseen_right = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!held_out(wanted[i].item_class, wanted[i].color)) continue;
      ++unseen;
      unseen_right +=
          verdict.classes[i] == labels.classes[i] && verdict.colors[i] == labels.colors[i];
    }
    const std::string at = concat("_at_", scale);
    metrics.emplace_back("draw_class" + at, agreement(verdict.classes, labels.classes));
    metrics.emplace_back("draw_color" + at, agreement(verdict.colors, labels.colors));
    metrics.emplace_back("draw_unseen" + at, unseen_right / std::max(unseen, 1.0));
    metrics.emplace_back("draw_frechet" + at,
                         frechet_distance(verdict.features, exam.real.features));
    sheet.assign(pictures.begin(),
                 pictures.begin() + std::min<std::ptrdiff_t>(80, std::ssize(pictures)));
  }
  data::RandomStream random(kSeed, 1);
  std::vector<Items> pairs;
  contexts.clear();
  for (int64_t i = 0; i < std::max<int64_t>(exam.count / 2, 1); ++i) {
    const auto any = [&] { return wanted[static_cast<size_t>(random.below(exam.count))]; };
    const Item left = any();
    pairs.push_back({left, any()});
    contexts.push_back(draw_context(ids_of(caption(pairs.back()))));
  }
  metrics.emplace_back("draw_pairs", all_right(exam, pairs, draw_items(artist, contexts, 2, {})));
  return metrics;
}

Metrics judge_edits(const Exam& exam, const heads::flow::Artist& artist) {
  data::RandomStream random(kSeed, 2);
  std::vector<data::Sample> contexts;
  std::vector<Array> sources;
  std::vector<Edit> edits;
  for (int64_t i = 0; i < exam.count; ++i) {
    const Items items = {exam.world.item(random)};
    sources.push_back(exam.world.picture(items));
    edits.push_back(exam.world.edit(items, random));
    contexts.push_back(edit_context(sources.back(), ids_of(edits.back().order)));
  }
  const std::vector<Array> drawn = draw_items(artist, contexts, 1, {});
  Metrics metrics;
  for (const bool edited : {true, false})
    for (const bool mirrors : {true, false}) {
      double error = 0, count = 0;
      for (size_t i = 0; i < edits.size(); ++i) {
        if ((edits[i].order == "mirror it") != mirrors) continue;
        error += mean_square(edited ? clamped(drawn[i]) : sources[i], edits[i].target);
        ++count;
      }
      metrics.emplace_back(
          concat(edited ? "edit" : "copy", "_psnr_", mirrors ? "mirror" : "recolour"),
          -10 * std::log10(error / std::max(count, 1.0) + 1e-9));
    }
  return metrics;
}

Metrics judge_captions(const Exam& exam, const heads::flow::Artist& artist) {
  constexpr int64_t kWords = 4;  // "a red coat", and its end
  data::RandomStream random(kSeed, 3);
  double classes = 0, exact = 0;
  for (int64_t begin = 0; begin < exam.count; begin += 250) {
    std::vector<data::Sample> contexts;
    std::vector<std::vector<int32_t>> wanted;
    for (int64_t i = begin; i < std::min(begin + 250, exam.count); ++i) {
      const Items items = {exam.world.item(random)};
      contexts.push_back(question_context(exam.world.picture(items), ids_of("describe")));
      wanted.push_back(ids_of(caption(items)));
    }
    const auto texts = heads::flow::answer(artist, contexts, kWords);
    for (size_t i = 0; i < texts.size(); ++i) {
      exact += texts[i] == wanted[i];
      classes += texts[i].size() > 2 && texts[i][2] == wanted[i][2];
    }
  }
  const auto count = static_cast<double>(exam.count);
  return {{"caption_class", classes / count}, {"caption_exact", exact / count}};
}

}  // namespace binade::examples
