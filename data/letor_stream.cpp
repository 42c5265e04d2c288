#include <binade/data/letor_stream.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/ranking_reader.h>

namespace binade::data {
namespace {

constexpr size_t kRead = size_t{1} << 20;         // bytes at a time
constexpr size_t kLongestLine = size_t{1} << 28;  // more is no file of lines

// A file that is read from its beginning to its end.
class Input {
 public:
  explicit Input(const std::filesystem::path& path)
      : name_(path.string()), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    check(descriptor_ >= 0, "cannot open ", name_, ": ", std::strerror(errno));
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;
  ~Input() { ::close(descriptor_); }

  const std::string& name() const { return name_; }
  // Appends what comes next to the text; false at the end.
  bool read(std::string& text) const {
    const size_t before = text.size();
    text.resize(before + kRead);
    ssize_t got = 0;
    do got = ::read(descriptor_, text.data() + before, kRead);
    while (got < 0 && errno == EINTR);
    text.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    check(got >= 0, "cannot read ", name_, ": ",
          errno == EISDIR ? "it is a folder" : std::strerror(errno));
    return got > 0;
  }

 private:
  std::string name_;
  int descriptor_;
};

// What must be known of a line before it is parsed.
struct LineFacts {
  bool document = false;
  std::string_view id;        // empty: the line has none
  int64_t last_feature = -1;  // its number in the file
};

// As LineParser (letor_lines.cpp) reads it: `line` is without its '\n'.
LineFacts look_at(std::string_view line) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  const auto token_end = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == '#'; };
  line = line.substr(0, line.find('#'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  size_t at = 0;
  const auto skip = [&](auto which) {
    while (at < line.size() && which(line[at])) ++at;
  };
  const auto skip_token = [&] { skip([&](char c) { return !token_end(c); }); };
  skip(blank);
  LineFacts facts;
  facts.document = at < line.size();
  skip_token();
  skip(blank);
  if (!line.substr(at).starts_with("qid:")) return facts;
  const size_t id = at += 4;
  skip_token();
  facts.id = line.substr(id, at - id);
  const size_t colon = line.rfind(':');
  if (colon < at) return facts;
  size_t digits = colon;
  while (digits > at && is_digit(line[digits - 1])) --digits;
  if (const auto number = parse_number(line.substr(digits, colon - digits)))
    facts.last_feature = static_cast<int64_t>(std::min(*number, 1e10));
  return facts;
}

}  // namespace

class LetorStream::Reader {
 public:
  Reader(const std::vector<std::filesystem::path>& files, const LetorStreamOptions& options)
      : options_(options), lines_(options.lines) {
    check(!files.empty(), "there is no file of ranked lists to read");
    check(lines_.features > 0, "a file that is read piece by piece does not say at its beginning ",
          "how many features it has; give their number");
    check(!lines_.group_by_qid && lines_.group_files.empty(),
          "lines that are read piece by piece can neither be brought together nor take their "
          "lists' lengths from group files");
    check(options.block_bytes > 0 && options.remembered > 0,
          "a block needs bytes and query ids to remember, got ", options.block_bytes, " and ",
          options.remembered);
    for (const auto& file : files) inputs_.emplace_back(file);
    open_next();
  }

  std::optional<RankingSet> next() {
    while (!scan() && !failure_ && read_more()) {
    }
    if (rows_ == 0) {
      if (failure_) throw Error(*failure_);
      return std::nullopt;
    }
    RankingSet set = parse();
    first_index_ = set.first_index;
    lines_ = lines_.like(set);
    queries_ += set.queries();
    documents_ += set.documents();
    drop_block();
    return set;
  }

  int64_t queries() const { return queries_; }
  int64_t documents() const { return documents_; }
  int64_t features_seen() const { return std::max<int64_t>(last_feature_ - first_index_ + 1, 0); }

 private:
  // The part of the buffer that comes from one file; it reaches to the next one's.
  struct Segment {
    size_t input = 0, begin = 0;
    int64_t first_line = 1;
    int64_t documents = 0;
  };
  struct Place {
    size_t input = 0;
    int64_t line = 0;
  };

  // ---- reading
  void open_next() {
    segments_.push_back({.input = current_++, .begin = buffer_.size()});
    line_ = 1;
    documents_in_file_ = 0;
  }

  // False at the end of the last file, or where one has no documents.
  bool read_more() {
    const Input& input = inputs_[current_ - 1];
    if (rows_ == 0) drop_block();  // lines without documents
    check(buffer_.size() - scanned_ <= kLongestLine, place({current_ - 1, line_}),
          ": the line is longer than ", gib(kLongestLine));
    if (ended_) {
      if (documents_in_file_ == 0) failure_ = input.name() + " has no documents";
      if (failure_ || current_ == inputs_.size()) return false;
      open_next();
      ended_ = false;
      return true;
    }
    ended_ = !input.read(buffer_);
    if (ended_ && buffer_.size() > scanned_) buffer_ += '\n';  // the last line lacks its end
    return true;
  }

  // ---- finding the block's end
  // Looks at the lines that have come. True when the block is complete: rows_ documents up to
  // scanned_.
  bool scan() {
    while (!failure_) {
      const size_t end = buffer_.find('\n', scanned_);
      if (end == std::string::npos) return false;
      std::string_view line(buffer_.data() + scanned_, end - scanned_);
      if (line_ == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
      const LineFacts facts = look_at(line);
      if (facts.document) {
        if (facts.id.empty()) {
          failure_ = complaint(line);
          return false;
        }
        if (rows_ + documents_ == 0 || facts.id != last_id_) {
          if (is_full()) return true;
          if (!begin_list(facts.id)) return false;
        }
        ++rows_;
        ++segments_.back().documents;
        ++documents_in_file_;
        last_feature_ = std::max(last_feature_, facts.last_feature);
      }
      scanned_ = end + 1;
      ++line_;
      if (rows_ > lines_.largest_bytes / row_bytes()) return true;  // the parser refuses it
    }
    return false;
  }

  bool is_full() const {
    return rows_ > 0 && (static_cast<int64_t>(scanned_) >= options_.block_bytes ||
                         rows_ >= options_.block_bytes / row_bytes());
  }
  int64_t row_bytes() const { return lines_.features * static_cast<int64_t>(sizeof(float)); }

  bool begin_list(std::string_view id) {
    const Place here{current_ - 1, line_};
    last_id_ = id;
    const auto [found, fresh] = places_.try_emplace(last_id_, here);
    if (!fresh) {
      failure_ = concat(place(here), ": query ", id, " is here again; its other lines begin at ",
                        place(found->second), ". Lines of a query must follow each other");
      return false;
    }
    remembered_.push_back(&found->first);
    // The list itself, and so many before it.
    if (static_cast<int64_t>(remembered_.size()) > options_.remembered + 1) {
      places_.erase(places_.find(*remembered_.front()));
      remembered_.pop_front();
    }
    return true;
  }

  // What the parser says of a line without a query id.
  std::string complaint(std::string_view line) const {
    const std::string text = std::string(line) + '\n';
    float label = 0;
    const auto block = letor::parse_lines(text, line_, {}, lines_, nullptr, &label);
    return block.problem ? concat(place({current_ - 1, line_}), ':', block.problem->column, ": ",
                                  block.problem->text)
                         : concat(place({current_ - 1, line_}), ": expected qid:ID");
  }

  // ---- handing out
  RankingSet parse() const {
    std::vector<letor::Source> sources;
    for (size_t s = 0; s < segments_.size(); ++s) {
      const Segment& segment = segments_[s];
      if (segment.documents == 0) continue;
      const size_t end = s + 1 < segments_.size() ? segments_[s + 1].begin : scanned_;
      sources.push_back({inputs_[segment.input].name(),
                         std::string_view(buffer_).substr(segment.begin, end - segment.begin),
                         segment.first_line});
    }
    return letor::read_sources(std::move(sources), lines_);
  }

  void drop_block() {
    buffer_.erase(0, scanned_);
    scanned_ = 0;
    rows_ = 0;
    segments_ = {{.input = current_ - 1, .begin = 0, .first_line = line_}};
  }

  std::string place(const Place& at) const {
    return concat(inputs_[at.input].name(), ':', at.line);
  }

  LetorStreamOptions options_;
  LetorOptions lines_;
  std::deque<Input> inputs_;
  size_t current_ = 0;  // the file that is read, counted from 1
  bool ended_ = false;  // nothing more comes from it
  int64_t documents_in_file_ = 0;

  std::string buffer_;
  std::vector<Segment> segments_;
  size_t scanned_ = 0;                  // bytes of the buffer that were looked at, whole lines
  int64_t line_ = 1;                    // the number of the line there
  int64_t rows_ = 0;                    // documents before it
  std::string last_id_;                 // of the last of them
  std::optional<std::string> failure_;  // what is wrong with the line there

  std::unordered_map<std::string, Place> places_;  // of the remembered queries
  std::deque<const std::string*> remembered_;      // the keys, the oldest first

  int64_t queries_ = 0, documents_ = 0, last_feature_ = -1;
  int first_index_ = 1;
};

LetorStream::LetorStream(const std::vector<std::filesystem::path>& files,
                         const LetorStreamOptions& options)
    : reader_(std::make_unique<Reader>(files, options)) {}

LetorStream::~LetorStream() = default;

std::optional<RankingSet> LetorStream::next() {
  return reader_->next();
}
int64_t LetorStream::queries() const {
  return reader_->queries();
}
int64_t LetorStream::documents() const {
  return reader_->documents();
}
int64_t LetorStream::features_seen() const {
  return reader_->features_seen();
}

}  // namespace binade::data
