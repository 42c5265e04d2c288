#include "mtp.h"

#include <charconv>

namespace binade::examples {

namespace mtp = heads::mtp;

MtpChoice mtp_choice(const TrainGptOptions& options) {
  const std::string& text = options.mtp;
  const size_t colon = text.find(':');
  int64_t depth = 0;
  const char* end = text.data() + text.size();
  const bool number = colon != std::string::npos &&
                      std::from_chars(text.data() + colon + 1, end, depth).ptr == end && depth > 0;
  check(number, "--mtp ", text, ": expected a kind, a colon and a number of tokens, as in ",
        "sequential:1");
  return {mtp::parse_kind(text.substr(0, colon)), depth};
}

namespace {

mtp::Format format_of(const TrainGptOptions& options, const nn::CausalLmConfig& base) {
  return options.mtp_format == "auto" ? mtp::default_format(mtp_choice(options).kind, base)
                                      : mtp::parse_format(options.mtp_format);
}

std::shared_ptr<mtp::MtpHeads> make_heads(const TrainGptOptions& options, mtp::Format format,
                                          const std::shared_ptr<nn::CausalLm>& model) {
  check(options.lora_rank == 0, "--mtp trains the whole model, --lora-rank adapters alone; leave ",
        "one of them out");
  const auto [kind, depth] = mtp_choice(options);
  const mtp::MtpConfig config{
      .kind = kind, .depth = depth, .conventions = mtp::conventions_of(format)};
  mtp::check_fits(format, config, model->config());
  check(options.seq_len > depth, "--mtp ", options.mtp, " looks further than --seq-len ",
        options.seq_len, " goes");
  return std::make_shared<mtp::MtpHeads>(model, config, /*copy_last=*/!options.init.empty());
}

}  // namespace

MtpTraining::MtpTraining(const TrainGptOptions& options, const std::shared_ptr<nn::CausalLm>& model,
                         Recompute recompute)
    : format_(format_of(options, model->config())),
      loss_{.weight = options.mtp_weight, .joint = true},
      heads_(make_heads(options, format_, model)),
      both_(model, "mtp", heads_) {
  heads_->set_recompute(recompute);
}

std::function<train::StepData(int64_t)> MtpTraining::data(
    std::function<train::StepData(int64_t)> windows) const {
  return
      [windows = std::move(windows), set = mtp::head_set(heads_->config(), loss_)](int64_t step) {
        train::StepData data = windows(step);
        for (train::Batch& batch : data.micro_batches)
          batch = {{"ids", batch.at("inputs")}, {"labels", batch.at("targets")}};
        // Every token of a window has a label: those further ahead lack the last ones of each row.
        const int64_t length = data.micro_batches[0].at("ids").size(1), rows = data.tokens / length;
        data.normalisers = {};
        const std::vector<std::string> names = set.names();
        const std::vector<int64_t> shifts = set.shifts();
        for (size_t k = 0; k < names.size(); ++k)
          data.normalisers.add(names[k], static_cast<double>(rows * (length - shifts[k])));
        return data;
      };
}

void MtpTraining::save(const TrainGptOptions& options) const {
  mtp::save_mtp(*heads_, options.save_mtp,
                {.format = format_, .base_name = options.save_hf, .dtype = DType::f32});
  say("saved {}\n", options.save_mtp);
}

}  // namespace binade::examples
