#include <binade/core/safetensors.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include <binade/core/file.h>
#include <binade/core/json_view.h>

namespace binade {

namespace {

using Json = nlohmann::json;

constexpr uint64_t kLargestHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr DTypeName kDTypes[] = {
    {"F64", DType::f64}, {"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16},
    {"I64", DType::i64}, {"I32", DType::i32}, {"U8", DType::u8},   {"BOOL", DType::boolean}};

std::string dump_header(const Json& header, const std::string& file) {
  try {
    return header.dump();
  } catch (const Json::exception& error) {  // bytes that are not UTF-8
    fail(file, ": a name or metadata cannot be written: ", error.what());
  }
}

struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin, end;
};

uint64_t unsigned_of(const Json& value, const std::string& file, const std::string& name,
                     const char* what) {
  if (!value.is_number_unsigned())
    fail(file, ": tensor ", name, ": ", what, " must be whole numbers from 0, got ",
         value.dump().substr(0, 40));
  return value.get<uint64_t>();
}

Entry parse_entry(const std::string& name, const Json& json, uint64_t data_bytes,
                  const std::string& file) {
  const auto member = [&](const char* key) -> const Json& {
    check(json.is_object() && json.contains(key), file, ": tensor ", name, " has no ", key);
    return json.at(key);
  };
  const Json& dtype_json = member("dtype");
  check(dtype_json.is_string(), file, ": tensor ", name, ": dtype must be a string");
  const std::string dtype_name = dtype_json.get<std::string>();
  const auto known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                  [&](const DTypeName& d) { return dtype_name == d.name; });
  check(known != std::end(kDTypes), file, ": tensor ", name, " has the dtype ", dtype_name,
        ", which Binade does not read (F64 F32 F16 BF16 I64 I32 U8 BOOL)");

  const Json& sizes = member("shape");
  check(sizes.is_array() && sizes.size() <= kMaxDims, file, ": tensor ", name,
        ": shape must be a list of at most ", kMaxDims, " sizes");
  Shape shape;
  int64_t product = size_of(known->dtype);  // of the sizes above 0, as strides need it
  for (const Json& size : sizes) {
    const uint64_t value = unsigned_of(size, file, name, "sizes");
    if (__builtin_mul_overflow(product, std::max<uint64_t>(value, 1), &product))
      fail(file, ": tensor ", name, ": the shape ", sizes.dump(), " overflows");
    shape.push_back(static_cast<int64_t>(value));
  }
  const auto bytes = static_cast<uint64_t>(shape.numel() * size_of(known->dtype));
  const Json& offsets = member("data_offsets");
  check(offsets.is_array() && offsets.size() == 2, file, ": tensor ", name,
        ": data_offsets must be two numbers");
  const uint64_t begin = unsigned_of(offsets[0], file, name, "data_offsets");
  const uint64_t end = unsigned_of(offsets[1], file, name, "data_offsets");
  check(begin <= end && end <= data_bytes, file, ": tensor ", name, ": data_offsets [", begin, ", ",
        end, "] pass the end of the data, which has ", data_bytes,
        " bytes: the file is truncated or damaged");
  check(end - begin == bytes, file, ": tensor ", name, ": ", dtype_name, ' ', shape, " needs ",
        bytes, " bytes, data_offsets give ", end - begin);
  return {name, known->dtype, shape, begin, end};
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const std::string file = path.string();
  const MappedFile mapped(path);
  const std::span<const std::byte> bytes = mapped.bytes();
  check(bytes.size() >= 8, file, " has ", bytes.size(), " bytes, too few for a safetensors file");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  check(header_bytes <= kLargestHeader, file, ": the header would have ", header_bytes,
        " bytes, more than ", kLargestHeader, ": not a safetensors file, or damaged");
  check(header_bytes <= bytes.size() - 8, file, ": the header of ", header_bytes,
        " bytes passes the end of the file: truncated");
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const uint64_t data_bytes = bytes.size() - 8 - header_bytes;

  const Json json = parse_json(header, file + ": the header", RepeatedNames::refused);
  check(json.is_object(), file, ": the header is not a JSON object");
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata) {
      if (value.is_null()) continue;  // the reference implementation takes it for none
      check(value.is_object(), file, ": __metadata__ is not an object");
      for (const auto& [key, text] : value.items()) {
        check(text.is_string(), file, ": __metadata__ ", key, " is not a string");
        metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    entries.push_back(parse_entry(name, value, data_bytes, file));
  }
  // An empty tensor goes before the one that begins where it lies.
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = 0;
  for (const Entry& entry : entries) {
    check(entry.begin >= expected, file, ": tensor ", entry.name,
          " overlaps the one before it (data_offsets ", entry.begin, " < ", expected, ")");
    check(entry.begin == expected, file, ": bytes ", expected, " to ", entry.begin,
          " of the data belong to no tensor");
    expected = entry.end;
  }
  check(expected == data_bytes, file, ": bytes ", expected, " to ", data_bytes,
        " of the data belong to no tensor");

  // The header's length need not be a multiple of the element size, so a view may be misaligned;
  // such tensors are copied out.
  const std::byte* data = bytes.data() + 8 + header_bytes;
  for (const Entry& entry : entries) {
    if (entry.dtype == DType::boolean) {
      const auto* end = data + entry.end;
      const auto* wrong =
          std::find_if(data + entry.begin, end, [](std::byte b) { return b > std::byte{1}; });
      check(wrong == end, file, ": tensor ", entry.name, ": a BOOL is ",
            wrong == end ? 0 : std::to_integer<int>(*wrong), ", neither 0 nor 1");
    }
    void* at = const_cast<std::byte*>(data + entry.begin);
    const bool aligned =
        reinterpret_cast<uintptr_t>(at) % static_cast<size_t>(size_of(entry.dtype)) == 0;
    Array array;
    if (aligned) {
      array = Array::from_blob(at, entry.shape, entry.dtype, {}, mapped.owner());
    } else {
      array = Array::empty(entry.shape, entry.dtype);
      std::memcpy(array.data(), at, entry.end - entry.begin);
    }
    names_.push_back(entry.name);
    tensors_.emplace(entry.name, std::move(array));
  }
}

Array SafetensorsFile::get(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  fail(path_.string(), " has no tensor ", name, did_you_mean(name, names_));
}

std::vector<std::string> SafetensorsWriter::order(
    const std::map<std::string, TensorForm>& tensors) {
  std::vector<std::string> order;
  for (const auto& [name, form] : tensors) order.push_back(name);
  std::stable_sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) {
    return size_of(tensors.at(a).dtype) > size_of(tensors.at(b).dtype);
  });
  return order;
}

struct SafetensorsWriter::State {
  State(const std::filesystem::path& path, std::map<std::string, TensorForm> tensors)
      : path(path), tensors(std::move(tensors)), order(SafetensorsWriter::order(this->tensors)) {}
  // Without its size in front; a multiple of 8 bytes.
  std::string header(const std::map<std::string, std::string>& metadata) const;

  std::filesystem::path path;
  std::map<std::string, TensorForm> tensors;
  std::vector<std::string> order;
  size_t written = 0;       // tensors
  size_t header_bytes = 0;  // without its size
  std::optional<AtomicFile> file;
};

std::string SafetensorsWriter::State::header(
    const std::map<std::string, std::string>& metadata) const {
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  uint64_t offset = 0;
  for (const std::string& name : order) {
    check(name != kMetadata, path.string(), ": a tensor cannot be called ", name);
    const TensorForm& form = tensors.at(name);
    const auto known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                    [&](const DTypeName& d) { return form.dtype == d.dtype; });
    Json& entry = header[name];
    entry["dtype"] = known->name;
    entry["shape"] = form.shape.span();
    const uint64_t end = offset + static_cast<uint64_t>(form.shape.numel() * size_of(form.dtype));
    entry["data_offsets"] = {offset, end};
    offset = end;
  }
  std::string text = dump_header(header, path.string());
  text.append((8 - text.size() % 8) % 8, ' ');  // the format's way to align the data
  return text;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::map<std::string, TensorForm> tensors,
                                     const std::map<std::string, std::string>& longest)
    : state_(std::make_unique<State>(path, std::move(tensors))) {
  const std::string reserved = state_->header(longest);
  state_->header_bytes = reserved.size();
  state_->file.emplace(path);
  const uint64_t header_bytes = reserved.size();
  state_->file->write(&header_bytes, 8);
  state_->file->write(reserved);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const Array& next) {
  check(state_->written < state_->order.size(), state_->path.string(), ": all tensors are written");
  const std::string& name = state_->order[state_->written++];
  const TensorForm& form = state_->tensors.at(name);
  check(next.defined() && next.dtype() == form.dtype && next.shape() == form.shape,
        state_->path.string(), ": tensor ", name, " is not the one that was announced");
  if (next.numel() == 0) return;
  const Array host = next.to(Device::cpu()).contiguous();
  state_->file->write(host.data(), static_cast<size_t>(host.bytes()));
}

void SafetensorsWriter::commit(const std::map<std::string, std::string>& metadata) {
  check(state_->written == state_->order.size(), state_->path.string(), ": tensor ",
        state_->written < state_->order.size() ? state_->order[state_->written] : "",
        " was not written");
  std::string header = state_->header(metadata);
  check(header.size() <= state_->header_bytes, state_->path.string(),
        ": the metadata is longer than what was reserved for it");
  header.resize(state_->header_bytes, ' ');
  state_->file->overwrite(8, header);
  state_->file->commit();
}

void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Array>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::map<std::string, TensorForm> forms;
  for (const auto& [name, array] : tensors) {
    check(array.defined(), path.string(), ": tensor ", name, " is undefined");
    forms.insert({name, {array.dtype(), array.shape()}});
  }
  SafetensorsWriter writer(path, forms, metadata);
  for (const std::string& name : SafetensorsWriter::order(forms)) writer.write(tensors.at(name));
  writer.commit(metadata);
}

}  // namespace binade
