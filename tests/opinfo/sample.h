// One call that PyTorch's operator database (OpInfo) makes of an op: its arguments as a row of the
// table reads them.
#pragma once

#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/safetensors.h>

namespace binade::opinfo {

// The sample asks for something that Binade does not have. Counted by op, not compared.
struct NotOffered : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Arguments are asked for by position and by PyTorch's name. What a row never asked for makes the
// sample "not offered": no argument is ignored.
class Sample {
 public:
  Sample(const nlohmann::json& description, const SafetensorsFile& tensors, Device device);

  // Whether the argument is there and not None.
  bool given(int position, const std::string& name = {});

  Tensor tensor(int position, const std::string& name = {});  // floating ones are leaves
  TensorList tensors(int position, const std::string& name = {});
  bool is_tensor(int position, const std::string& name = {});
  bool is_number(int position, const std::string& name);  // infinities too
  double number(int position, const std::string& name, double otherwise);
  double number(int position, const std::string& name = {});
  int64_t integer(int position, const std::string& name, int64_t otherwise);
  int64_t integer(int position, const std::string& name = {});
  bool flag(int position, const std::string& name, bool otherwise);
  std::string text(int position, const std::string& name, const std::string& otherwise);
  // The dtype that PyTorch names "torch.float32".
  DType dtype(int position, const std::string& name, DType otherwise);
  // A list of integers, or one integer as a list.
  std::vector<int64_t> integers(int position, const std::string& name = {});
  // The positional arguments from `position` on, as f(*sizes) or f(sizes).
  std::vector<int64_t> sizes(int position);

  // The argument must have this value, if it is given: others are not offered.
  template <class T>
  void only(int position, const std::string& name, const T& value) {
    const nlohmann::json* argument = find(position, name);
    if (argument && *argument != nlohmann::json(value))
      throw NotOffered(name + " = " + argument->dump());
  }
  // Throws NotOffered for an argument that nobody asked for.
  void check_all_read() const;

  // The leaves in the order in which they were described, for gradients: name and tensor.
  const std::vector<std::pair<std::string, Tensor>>& leaves() const { return leaves_; }

 private:
  const nlohmann::json* find(int position, const std::string& name);
  const nlohmann::json& need(int position, const std::string& name);
  Tensor load(const nlohmann::json& argument);

  const nlohmann::json& description_;
  const SafetensorsFile& file_;
  Device device_;
  std::set<std::string> read_;
  std::vector<std::pair<std::string, Tensor>> leaves_;
};

// One row an op.
struct Row {
  std::string op;  // OpInfo's name
  std::function<TensorList(Sample&)> call;
};

std::vector<Row> elementwise_rows();
std::vector<Row> reduction_rows();
std::vector<Row> shape_rows();
std::vector<Row> network_rows();
std::vector<Row> loss_rows();

}  // namespace binade::opinfo
