// HiddenCache: states of a language model over packed documents, in a file. Heads that read nothing
// else of a model that stays as it is train from it without the model's passes.
//
// The file: "BINADEHC", the size and the CRC-32C of a JSON header (u32 each), the header, then a
// block for every packed row: CRC-32C of what follows, count (u32 each), positions (count) i32,
// states (count, width) of the header's dtype. Little-endian.
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

// What of a language model is kept.
struct CachedStates {
  std::string what;   // "hidden states", for errors; a cache of something else is refused
  int64_t width = 0;  // numbers of a position
  // (B, T, width), f32 or half, as they are to be stored.
  std::function<Tensor(const Tensor& ids, const nn::Sequence& sequence)> compute;
};
// The hidden states behind the last norm, rounded to f16, for heads that read nothing else.
CachedStates last_hidden_states(const nn::CausalLm& model);

struct HiddenCacheOptions {
  // Keeps the positions from which heads that look 1 … `ahead` tokens beyond the next one have a
  // label; 0: all positions of documents.
  int64_t ahead = 0;
  std::function<void(uint64_t bytes)> announce;  // the file's size, before it is begun
  std::function<void(int64_t row, int64_t rows)> progress;
};

// One pass of the model over all rows, without a tape. Atomic. Throws Error for a state that is not
// finite in its dtype, and where the file system has no room for the file.
void write_hidden_cache(const std::filesystem::path& path, const nn::CausalLm& model,
                        const CachedStates& states, uint32_t model_fingerprint,
                        const PackedDocuments& documents, const amp::Preset& preset,
                        const HiddenCacheOptions& options = {});

class HiddenCache {
 public:
  // Maps the file. Throws Error for one that is damaged, cut short, of an earlier version, of
  // another model (by its fingerprint), of other states (`states.compute` may be empty), of other
  // documents or rows, or that keeps too few positions for `ahead`.
  HiddenCache(const std::filesystem::path& path, const CachedStates& states,
              uint32_t model_fingerprint, const PackedDocuments& documents, int64_t ahead);

  // States (rows, T, width) of packed rows, of dtype(); 0 where none are kept, and in rows that
  // there are not. Throws Error for a block whose checksum is wrong.
  Array rows(const std::vector<int64_t>& rows) const;
  DType dtype() const { return dtype_; }
  int64_t positions() const { return positions_; }  // kept in all

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::string what_;
  DType dtype_ = DType::f16;
  int64_t width_, seq_len_, positions_ = 0;
  std::vector<size_t> blocks_;  // where they begin
};

}  // namespace binade::heads::decoding
