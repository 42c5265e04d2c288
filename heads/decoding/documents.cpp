#include <binade/heads/decoding/documents.h>

#include <algorithm>
#include <numeric>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/text.h>
#include <binade/data/permutation.h>

namespace binade::heads::decoding {

namespace {

constexpr int32_t kIgnore = -100;

// The token ends in the text, if the tokens' bytes are those of the text; otherwise nothing.
std::vector<size_t> token_ends(const data::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                               std::string_view text) {
  std::vector<size_t> ends;
  size_t at = 0;
  for (const int32_t id : ids) {
    const std::string_view bytes = tokenizer.token_bytes(id, ends.empty());
    if (text.substr(at, bytes.size()) != bytes) return {};
    ends.push_back(at += bytes.size());
  }
  if (at != text.size()) return {};
  return ends;
}

void append(Document& document, const std::vector<int32_t>& ids, bool reply) {
  document.ids.insert(document.ids.end(), ids.begin(), ids.end());
  document.reply.resize(document.ids.size(), reply);
}

}  // namespace

Document encode_chat(const data::Tokenizer& tokenizer, const data::ChatTemplate& chat_template,
                     std::span<const data::Message> messages) {
  const data::RenderedChat chat = chat_template.render_with_mask(messages);
  const std::string_view text = chat.text;
  Document document;
  document.ids = tokenizer.encode(text);
  const std::vector<size_t> ends = token_ends(tokenizer, document.ids, text);
  if (ends.size() == document.ids.size()) {
    // A token that reaches into a reply is of the reply.
    for (size_t i = 0, span = 0; i < ends.size(); ++i) {
      const size_t begin = i == 0 ? 0 : ends[i - 1];
      while (span < chat.replies.size() && chat.replies[span].end <= begin) ++span;
      document.reply.push_back(span < chat.replies.size() && chat.replies[span].begin < ends[i]);
    }
    return document;
  }
  document = {};
  size_t at = 0;
  for (const data::ByteSpan& span : chat.replies) {
    append(document, tokenizer.encode(text.substr(at, span.begin - at)), false);
    append(document, tokenizer.encode(text.substr(span.begin, span.end - span.begin)), true);
    at = span.end;
  }
  append(document, tokenizer.encode(text.substr(at)), false);
  return document;
}

Document whole_document(std::vector<int32_t> ids) {
  Document document{std::move(ids), {}};
  document.reply.assign(document.ids.size(), true);
  if (!document.reply.empty()) document.reply.front() = false;
  return document;
}

PackedDocuments::PackedDocuments(std::vector<Document> documents, const PackingOptions& options)
    : documents_(std::move(documents)), options_(options) {
  check(options.batch_size > 0 && options.seq_len > 1,
        "packing needs rows and at least 2 tokens a ", "row, got a batch of ", options.batch_size,
        " and ", options.seq_len, " tokens");
  check(!documents_.empty(), "there is no document to train on");
  for (size_t i = 0; i < documents_.size(); ++i) {
    Document& document = documents_[i];
    check(!document.ids.empty() && document.reply.size() == document.ids.size(), "document ", i,
          " has ", document.ids.size(), " tokens and ", document.reply.size(), " marks");
    if (document.size() > options.seq_len) {
      document.ids.resize(static_cast<size_t>(options.seq_len));
      document.reply.resize(static_cast<size_t>(options.seq_len));
      ++cut_;
    }
    reply_tokens_ += std::count(document.reply.begin() + 1, document.reply.end(), true);
  }
  check(reply_tokens_ > 0, "no token of the documents counts as a label: the model wrote none of ",
        "them, or they were cut at ", options.seq_len, " tokens before its replies");

  std::vector<int64_t> order(documents_.size());
  std::iota(order.begin(), order.end(), 0);
  if (!options.pack) {
    for (const int64_t i : order) rows_.push_back({i});
    return;
  }
  const auto size = [&](int64_t i) { return documents_[static_cast<size_t>(i)].size(); };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return size(a) > size(b); });
  // First fit: rows by the room they have left, so that each document finds its row at once.
  std::vector<std::vector<int64_t>> with_room(static_cast<size_t>(options.seq_len) + 1);
  for (const int64_t i : order) {
    int64_t room = size(i);
    while (room <= options.seq_len && with_room[static_cast<size_t>(room)].empty()) ++room;
    int64_t row = row_count();
    if (room > options.seq_len) {
      rows_.emplace_back();
      room = options.seq_len;
    } else {
      row = with_room[static_cast<size_t>(room)].back();
      with_room[static_cast<size_t>(room)].pop_back();
    }
    rows_[static_cast<size_t>(row)].push_back(i);
    if (room > size(i)) with_room[static_cast<size_t>(room - size(i))].push_back(row);
  }
}

int64_t PackedDocuments::steps_per_epoch() const {
  return (row_count() + options_.batch_size - 1) / options_.batch_size;
}

train::Batch PackedDocuments::make(const std::vector<int64_t>& rows) const {
  const int64_t length = options_.seq_len;
  const auto total = rows.size() * static_cast<size_t>(length);
  std::vector<int32_t> ids(total, 0), labels(total, kIgnore), numbers(total, -1);
  std::vector<int32_t> positions(total, 0);
  for (size_t b = 0; b < rows.size(); ++b) {
    size_t at = b * static_cast<size_t>(length);
    if (rows[b] >= row_count()) continue;
    int32_t number = 0;
    for (const int64_t i : rows_[static_cast<size_t>(rows[b])]) {
      const Document& document = documents_[static_cast<size_t>(i)];
      for (size_t t = 0; t < document.ids.size(); ++t, ++at) {
        ids[at] = document.ids[t];
        numbers[at] = number;
        positions[at] = static_cast<int32_t>(t);
        if (t + 1 < document.ids.size() && document.reply[t + 1]) labels[at] = document.ids[t + 1];
      }
      ++number;
    }
  }
  const Shape shape{static_cast<int64_t>(rows.size()), length};
  return {{"ids", Array::from(ids, shape)},
          {"labels", Array::from(labels, shape)},
          {"documents", Array::from(numbers, shape)},
          {"positions", Array::from(positions, shape)}};
}

std::vector<int64_t> PackedDocuments::rows_of(int64_t index) const {
  std::vector<int64_t> rows;
  for (int64_t b = 0; b < options_.batch_size; ++b) {
    const int64_t n = index * options_.batch_size + b;
    const auto epoch = static_cast<uint64_t>(n / row_count());
    rows.push_back(data::Permutation(row_count(), options_.seed, epoch)(n % row_count()));
  }
  return rows;
}

train::Batch PackedDocuments::batch(int64_t index) const {
  return make(rows_of(index));
}

train::Batch PackedDocuments::rows_from(int64_t first) const {
  std::vector<int64_t> rows(static_cast<size_t>(options_.batch_size));
  std::iota(rows.begin(), rows.end(), first);
  return make(rows);
}

std::string PackedDocuments::fingerprint() const {
  uint32_t checksum = 0;
  int64_t tokens = 0;
  for (const Document& document : documents_) {
    const std::vector<uint8_t> marks(document.reply.begin(), document.reply.end());
    const int64_t size = document.size();
    checksum = crc32c(&size, sizeof(size), checksum);
    checksum = crc32c(document.ids.data(), document.ids.size() * sizeof(int32_t), checksum);
    checksum = crc32c(marks.data(), marks.size(), checksum);
    tokens += size;
  }
  return concat(document_count(), " documents, ", tokens, " tokens, CRC-32C ", checksum);
}

int64_t count_labels(const train::Batch& batch, int64_t shift) {
  const Array& labels = batch.at("labels");
  const int64_t length = labels.size(1);
  const int32_t* label = labels.data<int32_t>();
  const int32_t* document = batch.at("documents").data<int32_t>();
  int64_t count = 0;
  for (int64_t b = 0; b < labels.size(0); ++b)
    for (int64_t t = 0; t + shift < length; ++t) {
      const int64_t here = b * length + t, there = here + shift;
      count += label[there] != kIgnore && document[here] == document[there];
    }
  return count;
}

nn::Sequence sequence_of(const train::Named<Tensor>& batch, bool packed) {
  nn::Sequence sequence;
  if (!packed) return sequence;
  sequence.positions = batch.at("positions");
  sequence.documents = batch.at("documents");
  return sequence;
}

}  // namespace binade::heads::decoding
