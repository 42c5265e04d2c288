// Runs samples of PyTorch's operator database on Binade: opinfo.py writes them and compares.
//
//   binade_opinfo --ops                                       names of the ops that have a row
//   binade_opinfo FOLDER DEVICE [PRESET]                      cpu or cuda; PRESET: under
//   amp::Autocast
//
// FOLDER/samples.json and samples.safetensors say what to call, with seeds "<id>.seed.<output>" for
// backward and "<id>.secondseed.<leaf>" for that of the gradients. FOLDER/results.json tells the
// state of every sample ("ran", "not offered" or "refused") and, under "once", why it has no second
// gradient; results.safetensors holds "<id>.out.<output>", "<id>.grad.<leaf>" and
// "<id>.second.<leaf>".
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>

#include <binade/amp/preset.h>

#include "sample.h"

namespace {

using namespace binade;
using namespace binade::opinfo;
using nlohmann::json;

std::vector<Row> all_rows() {
  std::vector<Row> rows;
  for (const auto& family :
       {elementwise_rows(), reduction_rows(), shape_rows(), network_rows(), loss_rows()})
    rows.insert(rows.end(), family.begin(), family.end());
  return rows;
}

using Results = std::map<std::string, Array>;

// Adds the gradients of the leaves' gradients, times seeds.
void run_twice(const std::string& id, const std::vector<std::string>& names,
               const TensorList& gradients, const TensorList& leaves, const SafetensorsFile& file,
               Device device, Results& results) {
  TensorList tops, seeds;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const std::string seed = id + ".secondseed." + names[i];
    if (!file.contains(seed) || !gradients[i].defined() || !gradients[i].requires_grad()) continue;
    tops.push_back(gradients[i]);
    seeds.emplace_back(file.get(seed).to(device).to(gradients[i].dtype()));
  }
  if (tops.empty()) return;
  const TensorList second = grad(tops, leaves, seeds);
  for (size_t i = 0; i < leaves.size(); ++i)
    if (second[i].defined()) results[id + ".second." + names[i]] = second[i].array();
}

// Adds outputs and gradients of a sample, which has the id `id`. Returns why it has no second
// gradients, if they were asked for.
std::string run(const std::string& id, const Row& row, Sample& sample, const SafetensorsFile& file,
                Device device, const amp::Preset* preset, Results& results) {
  TensorList outputs;
  {
    std::optional<amp::Autocast> autocast;
    if (preset) autocast.emplace(*preset);
    outputs = row.call(sample);
  }
  sample.check_all_read();
  TensorList seeded, seeds, leaves;
  std::vector<std::string> names;
  for (size_t i = 0; i < outputs.size(); ++i) {
    results[id + ".out." + std::to_string(i)] = outputs[i].array();
    const std::string seed = id + ".seed." + std::to_string(i);
    if (!file.contains(seed) || !outputs[i].requires_grad()) continue;
    seeded.push_back(outputs[i]);
    const Array given = file.get(seed).to(device).to(outputs[i].dtype());
    check(given.numel() == outputs[i].numel(), "the output has shape ", outputs[i].shape(),
          ", PyTorch's ", given.shape());
    seeds.emplace_back(given.reshape(outputs[i].shape()));
  }
  for (const auto& [name, leaf] : sample.leaves()) {
    if (!leaf.requires_grad()) continue;
    names.push_back(name);
    leaves.push_back(leaf);
  }
  if (seeded.empty() || leaves.empty()) return "";
  bool twice = false;
  for (const std::string& name : names) twice |= file.contains(id + ".secondseed." + name);
  const TensorList gradients = grad(seeded, leaves, seeds, {.retain_graph = twice});
  for (size_t i = 0; i < leaves.size(); ++i)
    if (gradients[i].defined()) results[id + ".grad." + names[i]] = gradients[i].array();
  if (!twice) return "";
  TensorList differentiable;
  try {
    differentiable = grad(seeded, leaves, seeds, {.create_graph = true});
  } catch (const Error& error) {
    return error.what();
  }
  run_twice(id, names, differentiable, leaves, file, device, results);
  return "";
}

int run_all(const std::string& folder, Device device, const amp::Preset* preset) {
  std::map<std::string, Row> rows;
  for (Row& row : all_rows()) rows.emplace(row.op, std::move(row));
  std::ifstream in(folder + "/samples.json");
  check(in.good(), "cannot open ", folder, "/samples.json");
  const json samples = json::parse(in);
  const SafetensorsFile file(folder + "/samples.safetensors");
  json states = json::object();
  Results results;
  for (const json& description : samples) {
    const std::string id = std::to_string(description.at("id").get<int64_t>());
    Results own;
    std::string state = "ran", message, once;
    try {
      const auto row = rows.find(description.at("op").get<std::string>());
      if (row == rows.end()) throw NotOffered("the op has no row");
      Sample sample(description, file, device);
      once = run(id, row->second, sample, file, device, preset, own);
      for (auto& [name, array] : own) results.emplace(name, array.to(Device::cpu()).contiguous());
    } catch (const NotOffered& missing) {
      state = "not offered";
      message = missing.what();
    } catch (const Error& error) {
      state = "refused";
      message = error.what();
    }
    states[id] = {{"state", state}, {"message", message}};
    if (!once.empty()) states[id]["once"] = once;
  }
  write_safetensors(folder + "/results.safetensors", results);
  std::ofstream(folder + "/results.json") << states.dump(0);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 1 && arguments[0] == "--ops") {
      for (const Row& row : all_rows()) std::cout << row.op << '\n';
      return 0;
    }
    if (arguments.size() < 2 || arguments.size() > 3 ||
        (arguments[1] != "cpu" && arguments[1] != "cuda")) {
      std::cerr << "usage: binade_opinfo --ops | FOLDER cpu|cuda [PRESET]\n";
      return 2;
    }
    std::optional<amp::Preset> preset;
    if (arguments.size() == 3) preset = amp::Preset::parse(arguments[2]);
    return run_all(arguments[0], arguments[1] == "cpu" ? Device::cpu() : Device::cuda(),
                   preset ? &*preset : nullptr);
  } catch (const std::exception& error) {
    std::cerr << "binade_opinfo: " << error.what() << '\n';
    return 1;
  }
}
