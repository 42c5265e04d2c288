#include <binade/data/part_lines.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/data/picture.h>

namespace binade::data {

namespace {

struct Role {
  std::string_view name;
  PartKind kind;
};
constexpr std::array kRoles = {Role{"vit", PartKind::vit}, Role{"vae", PartKind::vae},
                               Role{"noise", PartKind::noise}};

class Reader {
 public:
  Reader(const std::filesystem::path& folder, const PartLineOptions& options)
      : folder_(folder), options_(options) {}

  Sample sample(const JsonView& line) {
    check_keys(line, {"parts"});
    const JsonView parts = line["parts"];
    parts.expect_array();
    Sample sample;
    for (size_t i = 0; i < parts.size(); ++i) sample.push_back(part(parts[i]));
    if (sample.empty()) line.refuse("the sample has no parts");
    check_fits(sample, options_.layout);
    RandomStream any(0, 0);
    thinned(sample, any);  // refuses what may not be dropped
    return sample;
  }

 private:
  Part part(const JsonView& json) {
    check_keys(json, {"text", "image", "role", "loss", "drop"});
    if (json.has("text") == json.has("image"))
      json.refuse("a part has either \"text\" or \"image\"");
    const double drop = json.has("drop") ? json["drop"].number() : 0;
    if (json.has("text")) {
      if (json.has("role")) json.refuse("a text has no \"role\"");
      return text_part(options_.encode(json["text"].text()), json.flag_or("loss", false), drop);
    }
    if (json.has("loss")) json.refuse("an image has no \"loss\": that of role noise is learned");
    return image_part(role(json["role"]), grid(json), drop);
  }

  static PartKind role(const JsonView& json) {
    for (const Role& one : kRoles)
      if (one.name == json.text()) return one.kind;
    json.refuse("unknown role \"", json.text(), "\"; there are vit, vae and noise");
  }

  Array grid(const JsonView& json) {
    const std::string& name = json["image"].text();
    const bool latents = role(json["role"]) != PartKind::vit;
    Array& known = known_[{name, latents}];
    if (known.defined()) return known;
    const Array picture = read_picture(folder_ / name);
    known = latents ? options_.to_latents(picture) : picture;
    return known;
  }

  static void check_keys(const JsonView& json, const std::vector<std::string_view>& keys) {
    json.expect_object();
    for (const auto& [key, value] : json.raw().items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        json.refuse("unknown key \"", key, "\"");
  }

  std::filesystem::path folder_;
  const PartLineOptions& options_;
  std::map<std::pair<std::string, bool>, Array> known_;  // by path, and whether as latents
};

}  // namespace

std::vector<Sample> read_part_lines(const std::filesystem::path& path,
                                    const PartLineOptions& options) {
  const std::string text = read_text_file(path);
  Reader reader(path.parent_path(), options);
  std::vector<Sample> samples;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = concat(path.string(), ", line ", number);
    const nlohmann::json json = parse_json(line, where, RepeatedNames::refused);
    try {
      samples.push_back(reader.sample({json, "the sample"}));
    } catch (const Error& error) {
      fail(where, ": ", error.what());
    }
  }
  check(!samples.empty(), path.string(), " has no sample");
  return samples;
}

}  // namespace binade::data
