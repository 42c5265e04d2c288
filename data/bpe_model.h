// INTERNAL. The merges of byte-pair encoding (Sennrich et al. 2016): from a piece of text to token
// ids.
#pragma once

#include <binade/data/pair_map.h>
#include <binade/data/tokenizer_spec.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace binade::data {

class BpeModel {
 public:
  // Error for an inconsistent vocabulary: an id given twice or out of range, a merge that names or
  // makes an unknown token, an unknown token that is not in the vocabulary.
  explicit BpeModel(const TokenizerSpec& spec);
  ~BpeModel();

  // What a thread needs to encode: buffers, and the ids of the words it met before.
  class Workspace;
  struct ReturnWorkspace {
    const BpeModel* model;
    void operator()(Workspace* workspace) const;
  };
  using WorkspacePointer = std::unique_ptr<Workspace, ReturnWorkspace>;
  WorkspacePointer workspace() const;

  // Appends the ids of one piece, as BPE::tokenize of `tokenizers` gives them. The piece is
  // well-formed UTF-8, or any bytes when the vocabulary is byte-level.
  void encode(std::string_view piece, Workspace& workspace, std::vector<int32_t>& ids) const;

  // The id of a single byte by itself; -1 if the vocabulary has none.
  int32_t byte_id(unsigned char byte) const { return byte_ids_[byte]; }

  int32_t largest_id() const { return largest_id_; }

 private:
  struct Merge {
    int32_t rank = -1;
    int32_t id = -1;
  };

  void read_merges(const TokenizerSpec& spec);
  void encode_word(std::string_view word, Workspace& workspace, std::vector<int32_t>& ids) const;
  void initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void merge(Workspace& workspace, std::vector<int32_t>& ids) const;
  int32_t id_of(std::string_view token) const;

  bool byte_level_, fuse_unk_, byte_fallback_, ignore_merges_;
  std::unordered_map<std::string, int32_t> ids_;         // spelled as in the file
  std::unordered_map<std::string, int32_t> byte_words_;  // for ignore_merges: in plain bytes
  std::unordered_map<char32_t, int32_t> characters_;     // tokens of one character
  std::array<int32_t, 256> byte_ids_{};                  // of bytes, or of "<0x41>" for fallback
  PairMap<Merge> merges_;
  int32_t unk_id_ = -1;
  int32_t largest_id_ = -1;
  bool words_end_before_space_mark_ = false;

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;  // guarded by mutex_
};

}  // namespace binade::data
