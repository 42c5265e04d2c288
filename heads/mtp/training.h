// Training multi-token prediction: behind a frozen model, or together with it.
#pragma once

#include <memory>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/heads/decoding/head_accuracy.h>
#include <binade/heads/decoding/heads_loss.h>
#include <binade/heads/mtp/mtp.h>

namespace binade::heads::mtp {

struct MtpLossOptions {
  double weight = 1;      // λ
  double beta = 0.6;      // β, in (0, 1]: recursive modules alone
  double acceptance = 0;  // decoding::learn_acceptance()
  // The model is trained as well: its own next-token loss counts, with 1, and its passes are
  // recorded.
  bool joint = false;
};

// What depth k = 1 … K counts in the loss: parallel λ, sequential λ/K, recursive λ·β^(k−1)/Σ.
std::vector<double> coefficients(const MtpConfig& config, const MtpLossOptions& options);

// The heads of the loss, for decoding::heads_data().
decoding::HeadSet head_set(const MtpConfig& config, const MtpLossOptions& options);

// Σ coefficient · CE of each depth, the mean over its own labels; joint: plus that of the next
// token. The batch has "ids" and "labels", the next tokens, and where rows are packed ("packed")
// "documents" and "positions". Reports <name>_loss and <name>_top1 of "head<k>" and "main".
// `heads` must outlive the function.
train::LossFunction mtp_loss(const MtpHeads& heads, bool packed, const MtpLossOptions& options);

// On documents that nobody trained on, with the model and the heads in evaluation mode. A module's
// guess is counted behind the true tokens before it.
decoding::HeadAccuracy head_accuracy(const MtpHeads& heads,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches,
                                     const MtpLossOptions& options,
                                     train::DataParallel* parallel = nullptr);

}  // namespace binade::heads::mtp
