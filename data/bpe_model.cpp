#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_model.h>
#include <binade/data/byte_alphabet.h>

#include <algorithm>
#include <functional>

namespace binade::data {
namespace {

constexpr std::string_view kSpaceMark =
    "\xE2\x96\x81";                    // U+2581, a space in SentencePiece's tokens
constexpr size_t kMaxCachedWord = 48;  // bytes
constexpr size_t kCacheSlots = 1 << 16;
constexpr size_t kCacheArena = 4 << 20;  // bytes of words, and ids of words

// The ids of words met before. Words are short and repeat (Zipf), so most lookups hit.
class WordCache {
 public:
  // Appends the ids of the word; false if it is not here.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const {
    if (slots_.empty()) return false;
    const Slot& slot = slots_[hash % kCacheSlots];
    if (slot.hash != hash || std::string_view(words_).substr(slot.word, slot.word_size) != word) {
      return false;
    }
    ids.insert(ids.end(), ids_.begin() + slot.first_id,
               ids_.begin() + slot.first_id + slot.id_count);
    return true;
  }

  // A slot holds the word seen last; when the store is full, all is forgotten.
  void add(std::string_view word, uint64_t hash, const int32_t* first, const int32_t* last) {
    const auto count = static_cast<size_t>(last - first);
    if (words_.size() + word.size() > kCacheArena || ids_.size() + count > kCacheArena) clear();
    if (slots_.empty()) slots_.resize(kCacheSlots);
    slots_[hash % kCacheSlots] = {hash, static_cast<uint32_t>(words_.size()),
                                  static_cast<uint32_t>(ids_.size()),
                                  static_cast<uint32_t>(word.size()), static_cast<uint32_t>(count)};
    words_ += word;
    ids_.insert(ids_.end(), first, last);
  }

 private:
  struct Slot {
    uint64_t hash = 0;
    uint32_t word = 0, first_id = 0, word_size = 0, id_count = 0;
  };

  void clear() {
    slots_.clear();
    words_.clear();
    ids_.clear();
  }

  std::vector<Slot> slots_;
  std::string words_;
  std::vector<int32_t> ids_;
};

std::string byte_token(int byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return concat("<0x", kDigits[byte >> 4], kDigits[byte & 15], '>');
}

}  // namespace

class BpeModel::Workspace {
 public:
  WordCache cache;
  std::vector<int32_t> symbols;  // of the word, then its merged symbols; -1 where merged away
  std::vector<int32_t> previous, next;  // neighbours of a symbol, -1 at the ends
  std::vector<uint64_t> queue;          // rank << 32 | position of the left symbol; a min-heap
};

BpeModel::BpeModel(const TokenizerSpec& spec)
    : byte_level_(spec.byte_level()),
      fuse_unk_(spec.fuse_unk),
      byte_fallback_(spec.byte_fallback),
      ignore_merges_(spec.ignore_merges) {
  check(!spec.vocab.empty(), "the vocabulary is empty");
  // Bounds what later tables by id allocate.
  const int64_t limit = 4 * static_cast<int64_t>(spec.vocab.size()) + 4096;
  std::vector<bool> taken;
  for (const auto& [token, id] : spec.vocab) {
    check(id >= 0 && id < limit, "token \"", token, "\" has id ", id,
          ", which is out of range for ", spec.vocab.size(), " tokens");
    largest_id_ = std::max(largest_id_, id);
    taken.resize(std::max<size_t>(taken.size(), id + 1));
    check(!taken[id], "token \"", token, "\" has id ", id, ", which another token has, too");
    taken[id] = true;
    check(ids_.emplace(token, id).second, "token \"", token, "\" is listed twice");
    size_t pos = 0;
    if (!token.empty()) {
      const char32_t first = utf8_next(token, pos);
      if (pos == token.size()) characters_[first] = id;
    }
    if (byte_level_ && ignore_merges_) {
      if (auto bytes = unspell_bytes(token)) byte_words_.emplace(std::move(*bytes), id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = byte_level_      ? id_of(spell_bytes(std::string(1, static_cast<char>(byte))))
                      : byte_fallback_ ? id_of(byte_token(byte))
                                       : -1;
  }
  if (!spec.unk_token.empty()) {
    unk_id_ = id_of(spec.unk_token);
    check(unk_id_ >= 0, "the unknown token \"", spec.unk_token, "\" is not in the vocabulary");
  }
  read_merges(spec);
}

BpeModel::~BpeModel() = default;

void BpeModel::read_merges(const TokenizerSpec& spec) {
  // If no merge joins other text to a space mark that follows it, nothing merges across such a
  // place, and a text without pre-tokenizer can be encoded word by word: the same ids, much faster.
  words_end_before_space_mark_ = !byte_level_ && id_of(kSpaceMark) >= 0;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const int32_t left_id = id_of(left), right_id = id_of(right), id = id_of(left + right);
    for (const auto& [token, known] :
         {std::pair(left, left_id), std::pair(right, right_id), std::pair(left + right, id)}) {
      check(known >= 0, "merge ", rank, " (\"", left, "\" \"", right, "\") needs the token \"",
            token, "\", which is not in the vocabulary");
    }
    merges_(left_id, right_id) = {static_cast<int32_t>(rank), id};
    if (right.starts_with(kSpaceMark) && !left.ends_with(kSpaceMark)) {
      words_end_before_space_mark_ = false;
    }
  }
}

int32_t BpeModel::id_of(std::string_view token) const {
  const auto entry = ids_.find(std::string(token));
  return entry == ids_.end() ? -1 : entry->second;
}

BpeModel::WorkspacePointer BpeModel::workspace() const {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return {new Workspace, ReturnWorkspace{this}};
  Workspace* workspace = idle_.back().release();
  idle_.pop_back();
  return {workspace, ReturnWorkspace{this}};
}

void BpeModel::ReturnWorkspace::operator()(Workspace* workspace) const {
  std::unique_ptr<Workspace> owner(workspace);
  const std::lock_guard lock(model->mutex_);
  model->idle_.push_back(std::move(owner));
}

void BpeModel::encode(std::string_view piece, Workspace& workspace,
                      std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    const auto& words = byte_level_ ? byte_words_ : ids_;
    const auto entry = words.find(std::string(piece));
    if (entry != words.end()) return ids.push_back(entry->second);
  }
  if (!words_end_before_space_mark_) return encode_word(piece, workspace, ids);
  size_t start = 0;
  for (size_t at = piece.find(kSpaceMark); at != std::string_view::npos;
       at = piece.find(kSpaceMark, at + kSpaceMark.size())) {
    const bool behind_mark =
        at == 0 || piece.substr(0, at).ends_with(kSpaceMark);  // a run of marks stays together
    if (behind_mark) continue;
    encode_word(piece.substr(start, at - start), workspace, ids);
    start = at;
  }
  encode_word(piece.substr(start), workspace, ids);
}

void BpeModel::encode_word(std::string_view word, Workspace& workspace,
                           std::vector<int32_t>& ids) const {
  const bool cacheable = word.size() <= kMaxCachedWord;
  const uint64_t hash = cacheable ? std::hash<std::string_view>()(word) : 0;
  if (cacheable && workspace.cache.find(word, hash, ids)) return;
  const size_t first = ids.size();
  workspace.symbols.clear();
  initial_symbols(word, workspace.symbols);
  merge(workspace, ids);
  if (cacheable) workspace.cache.add(word, hash, ids.data() + first, ids.data() + ids.size());
}

void BpeModel::initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
  // Unknown characters become one unknown token each, or one a run when they are fused. A pending
  // one is only written when a known character follows, as `tokenizers` does it.
  bool pending = false;
  const auto known = [&](int32_t id) {
    if (std::exchange(pending, false)) symbols.push_back(unk_id_);
    symbols.push_back(id);
  };
  const auto unknown = [&] {
    if (unk_id_ < 0) return;
    if (pending && !fuse_unk_) symbols.push_back(unk_id_);
    pending = true;
  };
  if (byte_level_) {
    for (const char c : word) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      id >= 0 ? known(id) : unknown();
    }
  } else {
    for (size_t pos = 0; pos < word.size();) {
      const size_t start = pos;
      const auto entry = characters_.find(utf8_next(word, pos));
      if (entry != characters_.end()) {
        known(entry->second);
        continue;
      }
      const std::string_view bytes = word.substr(start, pos - start);
      const auto has_byte = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)] >= 0; };
      if (byte_fallback_ && std::all_of(bytes.begin(), bytes.end(), has_byte)) {
        for (const char c : bytes) symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      } else {
        unknown();
      }
    }
  }
  if (pending) symbols.push_back(unk_id_);
}

void BpeModel::merge(Workspace& workspace, std::vector<int32_t>& ids) const {
  std::vector<int32_t>& symbols = workspace.symbols;
  std::vector<int32_t>& next = workspace.next;
  std::vector<int32_t>& previous = workspace.previous;
  std::vector<uint64_t>& queue = workspace.queue;
  const auto count = static_cast<int32_t>(symbols.size());
  previous.resize(count);
  next.resize(count);
  queue.clear();
  const auto propose = [&](int32_t left, int32_t right) {
    const Merge* merge = merges_.find(symbols[left], symbols[right]);
    if (!merge) return false;
    queue.push_back(static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left));
    return true;
  };
  for (int32_t i = 0; i < count; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1 < count ? i + 1 : -1;
    if (next[i] >= 0) propose(i, next[i]);
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  while (!queue.empty()) {
    const uint64_t best = queue.front();
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    queue.pop_back();
    const auto left = static_cast<int32_t>(best & 0xFFFFFFFF);
    const int32_t right = symbols[left] >= 0 ? next[left] : -1;
    if (right < 0) continue;
    const Merge* merge = merges_.find(symbols[left], symbols[right]);
    if (!merge || merge->rank != static_cast<int32_t>(best >> 32)) continue;  // overtaken
    symbols[left] = merge->id;
    symbols[right] = -1;
    next[left] = next[right];
    if (next[left] >= 0) {
      previous[next[left]] = left;
      if (propose(left, next[left])) std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
    if (previous[left] >= 0 && propose(previous[left], left)) {
      std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
  }
  std::copy_if(symbols.begin(), symbols.end(), std::back_inserter(ids),
               [](int32_t id) { return id >= 0; });
}

}  // namespace binade::data
