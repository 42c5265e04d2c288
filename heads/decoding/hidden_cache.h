// HiddenCache: the last hidden states of a language model over packed documents, in a file. Heads
// that read nothing else train from it without the model's passes.
//
// The file: "BINADEHC", the size and the CRC-32C of a JSON header (u32 each), the header, then a
// block for every packed row: CRC-32C of what follows, count (u32 each), positions (count) i32,
// hidden states (count, dim) f16. Little-endian.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/core/file.h>
#include <binade/heads/decoding/documents.h>
#include <binade/nn/models/causal_lm.h>

namespace binade::heads::decoding {

struct HiddenCacheOptions {
  // Keeps the positions from which heads that look 1 … `ahead` tokens beyond the next one have a
  // label; 0: all positions of documents.
  int64_t ahead = 0;
  std::function<void(int64_t row, int64_t rows)> progress;
};

// One pass of the model over all rows, without a tape. Atomic. Throws Error where a hidden state is
// not finite or beyond f16.
void write_hidden_cache(const std::filesystem::path& path, const nn::CausalLm& model,
                        uint32_t model_fingerprint, const PackedDocuments& documents,
                        const amp::Preset& preset, const HiddenCacheOptions& options = {});

class HiddenCache {
 public:
  // Maps the file. Throws Error for one that is damaged, cut short, of another model (by its
  // fingerprint), of other documents or rows, or that keeps too few positions for `ahead`.
  HiddenCache(const std::filesystem::path& path, uint32_t model_fingerprint, int64_t dim,
              const PackedDocuments& documents, int64_t ahead);

  // Hidden states (rows, T, dim) f16 of packed rows; 0 where none are kept, and in rows that there
  // are not. Throws Error for a block whose checksum is wrong.
  Array rows(const std::vector<int64_t>& rows) const;
  int64_t positions() const { return positions_; }  // kept in all

 private:
  std::filesystem::path path_;
  MappedFile file_;
  int64_t dim_, seq_len_, positions_ = 0;
  std::vector<size_t> blocks_;  // where they begin
};

}  // namespace binade::heads::decoding
