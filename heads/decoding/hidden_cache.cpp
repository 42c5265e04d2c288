#include <binade/heads/decoding/hidden_cache.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <binade/core/error.h>
#include <binade/core/json_view.h>
#include <binade/core/text.h>

namespace binade::heads::decoding {

namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

constexpr std::string_view kMagic = "BINADEHC";
constexpr size_t kPrefix = 16;   // magic, size and checksum of the header
constexpr int64_t kVersion = 2;  // 1 had f16 hidden states alone
constexpr int32_t kIgnore = -100;

struct BlockHead {
  uint32_t checksum = 0, count = 0;
};

size_t block_bytes(size_t count, size_t row_bytes) {
  return sizeof(BlockHead) + count * (sizeof(int32_t) + row_bytes);
}

size_t row_bytes_of(int64_t width, DType dtype) {
  return static_cast<size_t>(width * size_of(dtype));
}

// What rows there are and what stands in them.
std::string layout_of(const PackedDocuments& documents) {
  const PackingOptions& options = documents.options();
  return concat(documents.fingerprint(), ", ", documents.row_count(), " rows of ", options.seq_len,
                options.pack ? "" : ", one document each");
}

// The positions of row b of a batch that are kept.
std::vector<int32_t> kept_positions(const train::Batch& batch, int64_t b, int64_t ahead) {
  const Array& labels = batch.at("labels");
  const int64_t length = labels.size(1);
  const int32_t* label = labels.data<int32_t>() + b * length;
  const int32_t* document = batch.at("documents").data<int32_t>() + b * length;
  std::vector<int32_t> kept;
  for (int64_t t = 0; t < length; ++t) {
    if (document[t] < 0) continue;
    bool wanted = ahead == 0;
    for (int64_t s = 1; s <= ahead && t + s < length && !wanted; ++s)
      wanted = label[t + s] != kIgnore && document[t + s] == document[t];
    if (wanted) kept.push_back(static_cast<int32_t>(t));
  }
  return kept;
}

template <class T>
T read_at(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

DType stored_dtype(const std::string& text, const std::string& file) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    if (text == concat(dtype)) return dtype;
  fail(file, " holds states of the dtype '", text, "'; there are f32, f16 and bf16");
}

// Of a batch's rows: (B, T, width) on the CPU.
Array states_of(const nn::CausalLm& model, const CachedStates& states,
                const PackedDocuments& documents, const train::Batch& batch) {
  train::Named<Tensor> on_device;
  for (const auto& [name, array] : batch) on_device.add(name, Tensor(array.to(model.device())));
  const Array made =
      states.compute(on_device.at("ids"), sequence_of(on_device, documents.options().pack))
          .array()
          .to(Device::cpu())
          .contiguous();
  check(made.size(2) == states.width, "states of ", states.width, " numbers were announced, ",
        made.size(2), " came");
  return made;
}

// The kept positions of a row and their states (T, width), with a checksum in front.
std::vector<std::byte> block_of(const std::vector<int32_t>& kept, const Array& states) {
  const size_t row_bytes = row_bytes_of(states.size(1), states.dtype());
  std::vector<std::byte> block(block_bytes(kept.size(), row_bytes));
  std::byte* to = block.data() + sizeof(BlockHead);
  std::memcpy(to, kept.data(), kept.size() * sizeof(int32_t));
  to += kept.size() * sizeof(int32_t);
  const auto* from = static_cast<const std::byte*>(states.data());
  for (const int32_t t : kept) {
    std::memcpy(to, from + static_cast<size_t>(t) * row_bytes, row_bytes);
    to += row_bytes;
  }
  BlockHead head{0, static_cast<uint32_t>(kept.size())};
  std::memcpy(block.data(), &head, sizeof(head));
  head.checksum = crc32c(block.data() + sizeof(uint32_t), block.size() - sizeof(uint32_t));
  std::memcpy(block.data(), &head, sizeof(head));
  return block;
}

void check_finite(const std::vector<int32_t>& kept, const Array& states, int64_t row) {
  const std::vector<float> values = states.to(DType::f32).to_vector<float>();
  const auto width = static_cast<size_t>(states.size(1));
  for (const int32_t t : kept) {
    const auto begin = values.begin() + static_cast<int64_t>(static_cast<size_t>(t) * width);
    check(std::all_of(begin, begin + states.size(1), [](float x) { return std::isfinite(x); }),
          "the state of position ", t, " in row ", row, " is not finite in ", states.dtype(),
          "; train without a cache");
  }
}

void check_room(const std::filesystem::path& path, uint64_t bytes) {
  std::error_code error;
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  check(error || space.available >= bytes, path.string(), " would have ", bytes,
        " bytes, but its file system has room for ", space.available);
}

}  // namespace

CachedStates last_hidden_states(const nn::CausalLm& model) {
  return {.what = "hidden states",
          .width = model.config().dim,
          .compute = [&model](const Tensor& ids, const nn::Sequence& sequence) {
            return Tensor(model.hidden_states(ids, sequence).array().to(DType::f16));
          }};
}

void write_hidden_cache(const std::filesystem::path& path, const nn::CausalLm& model,
                        const CachedStates& states, uint32_t model_fingerprint,
                        const PackedDocuments& documents, const amp::Preset& preset,
                        const HiddenCacheOptions& options) {
  check(!model.training(), "a cache of hidden states needs the model in evaluation mode");
  check(options.ahead >= 0, "a cache of hidden states looks 0 or more tokens ahead, got ",
        options.ahead);
  const NoGrad off;
  const amp::Autocast scope(preset);
  const int64_t rows = documents.row_count(), step = documents.options().batch_size;
  const DType dtype = states_of(model, states, documents, documents.rows_from(0)).dtype();
  size_t bytes = 0;  // of all blocks
  for (int64_t first = 0; first < rows; first += step) {
    const train::Batch batch = documents.rows_from(first);
    for (int64_t b = 0; b < std::min(step, rows - first); ++b)
      bytes += block_bytes(kept_positions(batch, b, options.ahead).size(),
                           row_bytes_of(states.width, dtype));
  }
  const std::string header = nlohmann::ordered_json{
      {"version", kVersion},
      {"states", states.what},
      {"width", states.width},
      {"dtype", concat(dtype)},
      {"ahead", options.ahead},
      {"rows", layout_of(documents)},
      {"model_crc32c", model_fingerprint},
      {"block_bytes", bytes}}.dump();
  const uint64_t whole = kPrefix + header.size() + bytes;
  if (options.announce) options.announce(whole);
  check_room(path, whole);
  AtomicFile file(path);
  file.write(kMagic);
  const uint32_t head[2] = {static_cast<uint32_t>(header.size()),
                            crc32c(header.data(), header.size())};
  file.write(head, sizeof(head));
  file.write(header);
  for (int64_t first = 0; first < rows; first += step) {
    const train::Batch batch = documents.rows_from(first);
    const Array made = states_of(model, states, documents, batch);
    for (int64_t b = 0; b < std::min(step, rows - first); ++b) {
      const std::vector<int32_t> kept = kept_positions(batch, b, options.ahead);
      const Array row = made.select(0, b);
      check_finite(kept, row, first + b);
      const std::vector<std::byte> block = block_of(kept, row);
      file.write(block.data(), block.size());
    }
    if (options.progress) options.progress(std::min(first + step, rows), rows);
  }
  file.commit();
}

HiddenCache::HiddenCache(const std::filesystem::path& path, const CachedStates& states,
                         uint32_t model_fingerprint, const PackedDocuments& documents,
                         int64_t ahead)
    : path_(path),
      file_(path),
      what_(states.what),
      width_(states.width),
      seq_len_(documents.options().seq_len) {
  const std::string name = path.string();
  const std::byte* data = file_.bytes().data();
  const size_t size = file_.bytes().size();
  check(size >= kPrefix && std::memcmp(data, kMagic.data(), kMagic.size()) == 0, name,
        " is no cache of hidden states");
  const auto header_size = read_at<uint32_t>(data + 8), checksum = read_at<uint32_t>(data + 12);
  check(header_size <= size - kPrefix, name, " is cut short");
  const std::string_view header(reinterpret_cast<const char*>(data) + kPrefix, header_size);
  check(crc32c(header.data(), header.size()) == checksum, name, " has a damaged header");
  const nlohmann::json json = parse_json(header, name);
  const JsonView view(json, name + ": ");
  constexpr int64_t kMost = int64_t{1} << 56;
  constexpr const char* kRemedy = "; remove it, or name another file";
  const int64_t version = view["version"].integer(0, kMost);
  check(version == kVersion, name, " is a cache of version ", version, ", not ", kVersion, kRemedy);
  check(view["model_crc32c"].integer(0, UINT32_MAX) == model_fingerprint, name,
        " holds states of a language model with other weights", kRemedy);
  check(view["states"].text() == what_ && view["width"].integer(1, kMost) == width_, name,
        " holds ", view["states"].text(), " (", view["width"].integer(1, kMost), " numbers), not ",
        what_, " (", width_, ')', kRemedy);
  dtype_ = stored_dtype(view["dtype"].text(), name);
  const std::string& rows = view["rows"].text();
  check(rows == layout_of(documents), name, " holds states of other documents (", rows, ", not ",
        layout_of(documents), ')', kRemedy);
  const int64_t kept = view["ahead"].integer(0, kMost);
  check(kept == 0 || (ahead > 0 && ahead <= kept), name, " keeps positions for ", kept,
        " heads, not for ", ahead, kRemedy);
  const size_t begin = kPrefix + header_size;
  check(size == begin + static_cast<size_t>(view["block_bytes"].integer(0, kMost)), name,
        size < begin + static_cast<size_t>(view["block_bytes"].integer(0, kMost))
            ? " is cut short"
            : " goes on behind its end");
  size_t at = begin;
  const size_t row_bytes = row_bytes_of(width_, dtype_);
  for (int64_t row = 0; row < documents.row_count(); ++row) {
    check(size - at >= sizeof(BlockHead), name, " is cut short at row ", row);
    const auto block = read_at<BlockHead>(data + at);
    check(block.count <= static_cast<uint64_t>(seq_len_) &&
              block_bytes(block.count, row_bytes) <= size - at,
          name, " is damaged at row ", row);
    blocks_.push_back(at);
    positions_ += block.count;
    at += block_bytes(block.count, row_bytes);
  }
  check(at == size, name, " is damaged: its rows end before the file does");
}

Array HiddenCache::rows(const std::vector<int64_t>& rows) const {
  Array out = Array::zeros({static_cast<int64_t>(rows.size()), seq_len_, width_}, dtype_);
  auto* const to = static_cast<std::byte*>(out.data());
  const size_t row_bytes = row_bytes_of(width_, dtype_);
  for (size_t b = 0; b < rows.size(); ++b) {
    if (rows[b] >= static_cast<int64_t>(blocks_.size())) continue;
    const std::byte* block = file_.bytes().data() + blocks_[static_cast<size_t>(rows[b])];
    const auto head = read_at<BlockHead>(block);
    check(crc32c(block + sizeof(uint32_t), block_bytes(head.count, row_bytes) - sizeof(uint32_t)) ==
              head.checksum,
          path_.string(), ": the states of row ", rows[b],
          " are damaged (their checksum is wrong); remove the file, so that it is written anew");
    const std::byte* positions = block + sizeof(BlockHead);
    const std::byte* values = positions + head.count * sizeof(int32_t);
    for (uint32_t i = 0; i < head.count; ++i) {
      const auto t = read_at<int32_t>(positions + i * sizeof(int32_t));
      check(t >= 0 && t < seq_len_, path_.string(), ": row ", rows[b], " has a position ", t);
      const size_t place = b * static_cast<size_t>(seq_len_) + static_cast<size_t>(t);
      std::memcpy(to + place * row_bytes, values + i * row_bytes, row_bytes);
    }
  }
  return out;
}

}  // namespace binade::heads::decoding
