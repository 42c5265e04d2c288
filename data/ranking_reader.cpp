#include <binade/data/ranking_reader.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>
#include <unordered_map>

#include <binade/core/file.h>
#include <binade/core/utf8.h>
#include <binade/data/parallel.h>

namespace binade::data::letor {
namespace {

constexpr size_t kChunk = size_t{1} << 20;  // bytes of text that one piece of work has

// Whole lines of one source. `text` ends with '\n'.
struct Chunk {
  size_t source = 0;
  std::string_view text;
  int64_t first_line = 1;
  int64_t lines = 0;
  int64_t first_row = 0;  // where its rows are written: a row a line
  Block block;
};

// A list of the set while it is put together: rows [begin, begin + rows) of one or more places.
struct Query {
  std::string_view id;
  std::vector<std::pair<int64_t, int64_t>> rows;  // begin, count
  size_t source = 0;                              // of its first line
  int64_t line = 0;
};

std::string_view without_mark(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return text;
}

// Reads the sources of a set; an object for one call.
class Reader {
 public:
  Reader(std::vector<Source> sources, const LetorOptions& options, const CsvColumns* csv)
      : sources_(std::move(sources)), options_(options) {
    layout_.csv = csv;
  }

  RankingSet read() {
    check(!sources_.empty(), "there is no file of ranked lists to read");
    check(options_.features >= 0, "a set cannot have ", options_.features, " features");
    find_group_files();
    make_chunks();
    parse();
    check_sources();
    gather_rows();
    layout_.query_ids ? gather_queries() : gather_groups();
    finish();
    return std::move(set_);
  }

 private:
  // ---- where the lists' lengths come from
  void find_group_files() {
    group_files_ = options_.group_files;
    check(group_files_.empty() || group_files_.size() == sources_.size(), group_files_.size(),
          " group files were given for ", sources_.size(), " files of lines");
    layout_.query_ids = group_files_.empty();
    const CsvColumns* csv = layout_.csv;
    const bool ids = csv ? std::count(csv->roles.begin(), csv->roles.end(), CsvColumns::kQuery) > 0
                         : has_query_ids(without_mark(sources_[0].text));
    check(!csv || !ids || group_files_.empty(), sources_[0].name,
          ": query ids come from a column and from group files; give one of them");
    if (!group_files_.empty() || ids) return;
    for (const Source& source : sources_) {
      std::filesystem::path found;
      for (const char* ending : {".query", ".group"}) {
        const std::filesystem::path path = source.name + ending;
        if (found.empty() && std::filesystem::exists(path)) found = path;
      }
      check(!csv || !found.empty(), source.name,
            ": no column has query ids and there is no group file beside it; name one of them");
      // Without one, the first line of LETOR is refused for its lack of an id.
      if (found.empty()) return group_files_.clear();
      group_files_.push_back(found);
    }
    layout_.query_ids = false;
    note("the lengths of lists come from ", group_files_[0].filename().string(),
         group_files_.size() > 1 ? " and its like" : "");
  }

  // ---- cutting and counting
  void make_chunks() {
    for (size_t s = 0; s < sources_.size(); ++s) {
      std::string_view rest = without_mark(sources_[s].text);
      check(rest.find_first_not_of(" \t\r\n") != std::string_view::npos, sources_[s].name,
            " has no documents");
      // A last line without an end is parsed in a copy that has one.
      const size_t whole = rest.rfind('\n') + 1;
      const std::string_view tail = rest.substr(whole);
      rest = rest.substr(0, whole);
      while (!rest.empty()) {
        const size_t end = rest.size() <= kChunk ? rest.size() : rest.find('\n', kChunk) + 1;
        chunks_.push_back({.source = s, .text = rest.substr(0, end)});
        rest.remove_prefix(end);
      }
      if (!tail.empty()) {
        tails_.push_back(std::string(tail) + '\n');
        chunks_.push_back({.source = s, .text = tails_.back()});
      }
    }
    for_chunks([](Chunk& chunk) {
      const char* at = chunk.text.data();
      const char* end = at + chunk.text.size();
      for (; at < end; ++chunk.lines)
        at = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at))) + 1;
    });
    for (size_t c = 0; c < chunks_.size(); ++c) {
      const bool same_file = c > 0 && chunks_[c].source == chunks_[c - 1].source;
      chunks_[c].first_line = same_file ? chunks_[c - 1].first_line + chunks_[c - 1].lines
                                        : sources_[chunks_[c].source].first_line;
      if (c > 0) chunks_[c].first_row = chunks_[c - 1].first_row + chunks_[c - 1].lines;
    }
    lines_ = chunks_.back().first_row + chunks_.back().lines;
  }

  // ---- parsing
  void parse() {
    layout_.first_index = options_.first_index == LetorOptions::FirstIndex::zero ? 0 : 1;
    layout_.first_index_known = options_.first_index != LetorOptions::FirstIndex::detect;
    layout_.width = options_.features;
    layout_.width_known = options_.features > 0;
    if (layout_.csv) {
      layout_.first_index = 0;
      layout_.first_index_known = layout_.width_known = true;
      layout_.width = std::count_if(layout_.csv->roles.begin(), layout_.csv->roles.end(),
                                    [](int64_t role) { return role >= 0; });
      return parse_all();
    }
    // What the first line of every chunk says is nearly always right. It is parsed as all others,
    // and all is parsed again where it was not.
    std::vector<Block> samples;
    for (const Chunk& chunk : chunks_) {
      float label = 0;
      const Layout nothing = {.query_ids = layout_.query_ids};
      samples.push_back(parse_lines(chunk.text.substr(0, chunk.text.find('\n') + 1), 1, nothing,
                                    options_, nullptr, &label));
    }
    adapt(samples);
    bool adapted = true;
    while (adapted) {
      parse_all();
      std::vector<Block> blocks;
      for (const Chunk& chunk : chunks_)
        blocks.push_back({.smallest_index = chunk.block.smallest_index,
                          .largest_index = chunk.block.largest_index});
      adapted = adapt(blocks);
    }
    if (!layout_.first_index_known)
      note("features are numbered from ", layout_.first_index, ": ",
           layout_.first_index == 0 ? "there is a feature 0" : "no line has a feature 0");
  }

  void parse_all() {
    const int64_t row_bytes = layout_.width * static_cast<int64_t>(sizeof(float));
    check(row_bytes == 0 || lines_ <= options_.largest_bytes / row_bytes, sources_[0].name, ": ",
          lines_, " lines of ", layout_.width, " features would take more than the limit of ",
          gib(options_.largest_bytes));
    features_ = Array();  // its memory is needed
    features_ = Array::empty({lines_, layout_.width}, DType::f32);
    labels_ = Array::empty({lines_}, DType::f32);
    for_chunks([&](Chunk& chunk) {
      chunk.block = parse_lines(chunk.text, chunk.first_line, layout_, options_,
                                features_.data<float>() + chunk.first_row * layout_.width,
                                labels_.data<float>() + chunk.first_row);
    });
    for (const Chunk& chunk : chunks_) {
      if (!chunk.block.problem) continue;
      const Problem& problem = *chunk.block.problem;
      fail(place(chunk.source, problem.line), ':', problem.column, ": ", problem.text);
    }
  }

  // Makes the layout hold what was found, and says whether it changed.
  bool adapt(const std::vector<Block>& blocks) {
    const Layout before = layout_;
    int64_t largest = -1;
    for (const Block& block : blocks) {
      if (block.smallest_index == 0 && !layout_.first_index_known) layout_.first_index = 0;
      largest = std::max(largest, block.largest_index);
    }
    if (!layout_.width_known)
      layout_.width = std::max(largest - layout_.first_index + 1,
                               before.first_index == layout_.first_index ? before.width : 0);
    return layout_.width != before.width || layout_.first_index != before.first_index;
  }

  void check_sources() const {
    std::vector<int64_t> rows(sources_.size()), largest(sources_.size(), -1);
    for (const Chunk& chunk : chunks_) {
      rows[chunk.source] += chunk.block.rows;
      largest[chunk.source] = std::max(largest[chunk.source], chunk.block.largest_index);
    }
    for (size_t s = 0; s < sources_.size(); ++s) {
      check(rows[s] > 0, sources_[s].name, " has no documents");
      check(options_.features > 0 || largest[s] == largest[0], sources_[s].name,
            " has features up to ", largest[s], ", ", sources_[0].name, " up to ", largest[0],
            "; if lines may leave features out, say how many there are");
    }
  }

  // ---- putting together
  void gather_rows() {
    // Lines without a document left gaps.
    int64_t rows = 0;
    for (const Chunk& chunk : chunks_) {
      const int64_t count = chunk.block.rows;
      if (rows != chunk.first_row && count > 0) {
        float* features = features_.data<float>();
        float* labels = labels_.data<float>();
        std::memmove(features + rows * layout_.width, features + chunk.first_row * layout_.width,
                     static_cast<size_t>(count * layout_.width) * sizeof(float));
        std::memmove(labels + rows, labels + chunk.first_row,
                     static_cast<size_t>(count) * sizeof(float));
      }
      rows += count;
    }
    features_ = features_.slice(0, 0, rows);
    labels_ = labels_.slice(0, 0, rows);
  }

  void gather_queries() {
    std::unordered_map<std::string_view, size_t> known;
    int64_t row = 0, apart = 0;
    size_t last = 0;  // the query of the row before
    for (const Chunk& chunk : chunks_) {
      for (const Run& run : chunk.block.runs) {
        if (!queries_.empty() && queries_[last].id == run.id) {
          queries_[last].rows.back().second += run.rows;
        } else if (const auto [found, fresh] = known.try_emplace(run.id, queries_.size()); fresh) {
          last = queries_.size();
          queries_.push_back({run.id, {{row, run.rows}}, chunk.source, run.line});
        } else {
          last = found->second;
          Query& query = queries_[last];
          check(options_.group_by_qid, place(chunk.source, run.line), ": query ", run.id,
                " is here again; its other lines begin at ", place(query.source, query.line),
                ". Lines of a query must follow each other, or group_by_qid (--group-by-qid) "
                "brings them together");
          apart += query.rows.size() == 1 ? 1 : 0;
          query.rows.emplace_back(row, run.rows);
        }
        row += run.rows;
      }
    }
    if (apart > 0) {
      bring_together();
      note("the lines of ", apart, apart == 1 ? " query were" : " queries were",
           " apart and were brought together");
    }
  }

  // Copies the rows into the order of their queries.
  void bring_together() {
    std::vector<int64_t> order;
    for (Query& query : queries_)
      for (const auto& [begin, count] : query.rows)
        for (int64_t row = begin; row < begin + count; ++row) order.push_back(row);
    const auto rows = static_cast<int64_t>(order.size());
    const int64_t width = layout_.width;
    const Array features = Array::empty({rows, width}, DType::f32);
    const Array labels = Array::empty({rows}, DType::f32);
    constexpr int64_t kRows = 4096;
    parallel_for((rows + kRows - 1) / kRows, options_.threads, [&](int64_t block, int) {
      for (int64_t i = block * kRows; i < std::min(rows, (block + 1) * kRows); ++i) {
        const int64_t from = order[static_cast<size_t>(i)];
        std::memcpy(features.data<float>() + i * width, features_.data<float>() + from * width,
                    static_cast<size_t>(width) * sizeof(float));
        labels.data<float>()[i] = labels_.data<float>()[from];
      }
    });
    features_ = features;
    labels_ = labels;
    order_ = std::move(order);
  }

  void gather_groups() {
    std::vector<int64_t> rows(sources_.size());
    for (const Chunk& chunk : chunks_) rows[chunk.source] += chunk.block.rows;
    int64_t row = 0;
    for (size_t s = 0; s < sources_.size(); ++s) {
      const std::string name = group_files_[s].string();
      const std::string text = read_text_file(group_files_[s]);
      int64_t sum = 0, line = 0;
      for (std::string_view rest = text; !rest.empty();) {
        ++line;
        std::string_view word = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(word.size() + 1, rest.size()));
        while (!word.empty() && (word.back() == '\r' || word.back() == ' ')) word.remove_suffix(1);
        if (word.empty()) continue;
        const auto count = parse_number(word);
        check(count && *count >= 0 && *count <= static_cast<double>(rows[s]) &&
                  *count == std::floor(*count),
              name, ':', line, ": expected how many documents a query has, found \"", word, '"');
        queries_.push_back({{}, {{row, static_cast<int64_t>(*count)}}, s, line});
        row += static_cast<int64_t>(*count);
        sum += static_cast<int64_t>(*count);
        check(sum <= rows[s], name, ':', line, ": the queries so far have ", sum, " documents, ",
              sources_[s].name, " has ", rows[s]);
      }
      check(sum == rows[s], name, ": the queries have ", sum, " documents, ", sources_[s].name,
            " has ", rows[s]);
    }
    for (size_t q = 0; q < queries_.size(); ++q) numbers_.push_back(std::to_string(q + 1));
    for (size_t q = 0; q < queries_.size(); ++q) queries_[q].id = numbers_[q];
  }

  void finish() {
    std::vector<int64_t> offsets = {0};
    std::vector<std::string_view> ids;
    for (const Query& query : queries_) {
      int64_t rows = 0;
      for (const auto& part : query.rows) rows += part.second;
      offsets.push_back(offsets.back() + rows);
      ids.push_back(query.id);
    }
    set_.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())});
    set_.features = features_;
    set_.labels = labels_;
    set_.query_ids = Texts(ids);
    if (!order_.empty())
      set_.file_rows = Array::from(order_, {static_cast<int64_t>(order_.size())});
    set_.first_index = layout_.first_index;
    if (options_.comments) gather_comments();
    int64_t missing = 0, out_of_range = 0;
    double largest = 0;
    for (const Chunk& chunk : chunks_) {
      missing += chunk.block.missing;
      out_of_range += chunk.block.out_of_range;
      largest = std::max(largest, chunk.block.largest);
    }
    if (out_of_range > 0)
      note(out_of_range, " values were beyond f32 and count as ",
           options_.out_of_range == LetorOptions::OutOfRange::clamp ? "its largest" : "missing");
    if (missing > 0) {
      fill_missing();
      note(missing, " missing values became ",
           options_.missing == LetorOptions::Missing::zero
               ? "0"
               : "the smallest of their feature in the query");
    }
    constexpr double kLargestHalf = 65504;
    if (largest > kLargestHalf)
      note("values reach ", largest, " in magnitude, beyond f16's ", kLargestHalf,
           ": scale them before training in half precision");
    set_.notes = std::move(notes_);
  }

  void gather_comments() {
    std::vector<std::string_view> comments, ordered;
    for (const Chunk& chunk : chunks_)
      comments.insert(comments.end(), chunk.block.comments.begin(), chunk.block.comments.end());
    for (const int64_t row : order_) ordered.push_back(comments[static_cast<size_t>(row)]);
    set_.comments = Texts(order_.empty() ? comments : ordered);
  }

  // Missing values were left as NaN.
  void fill_missing() {
    const auto offsets = set_.offset_span();
    const int64_t width = layout_.width;
    float* features = features_.data<float>();
    const bool zero = options_.missing == LetorOptions::Missing::zero;
    parallel_for(set_.queries(), options_.threads, [&](int64_t query, int) {
      for (int64_t column = 0; column < width; ++column) {
        float fill = HUGE_VALF;
        const auto each = [&](auto work) {
          for (int64_t row = offsets[query]; row < offsets[query + 1]; ++row)
            work(features[row * width + column]);
        };
        if (!zero) each([&](float value) { fill = value < fill ? value : fill; });
        if (fill == HUGE_VALF) fill = 0;
        each([&](float& value) { value = std::isnan(value) ? fill : value; });
      }
    });
  }

  // ---- helpers
  template <class Work>
  void for_chunks(const Work& work) {
    parallel_for(static_cast<int64_t>(chunks_.size()), options_.threads,
                 [&](int64_t c, int) { work(chunks_[static_cast<size_t>(c)]); });
  }
  std::string place(size_t source, int64_t line) const {
    return concat(sources_[source].name, ':', line);
  }
  template <class... Parts>
  void note(const Parts&... parts) {
    notes_.push_back(concat(parts...));
  }

  std::vector<Source> sources_;
  const LetorOptions& options_;
  std::vector<std::filesystem::path> group_files_;
  std::vector<Chunk> chunks_;
  std::deque<std::string> tails_;
  std::deque<std::string> numbers_;  // the ids of queries that have none
  int64_t lines_ = 0;
  Layout layout_;
  Array features_, labels_;
  std::vector<Query> queries_;
  std::vector<int64_t> order_;  // of the rows, where queries were brought together
  std::vector<std::string> notes_;
  RankingSet set_;
};

}  // namespace

RankingSet read_sources(std::vector<Source> sources, const LetorOptions& options,
                        const CsvColumns* csv) {
  return Reader(std::move(sources), options, csv).read();
}

}  // namespace binade::data::letor
