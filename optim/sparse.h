// Optimizers of sparse tables (nn/sparse_embedding.h): a step costs what its touched rows cost.
//   optim::SparseAdamW sparse(model, {.learning_rate = 1e-2});
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <binade/core/update.h>
#include <binade/nn/sparse_embedding.h>
#include <binade/optim/adamw.h>

namespace binade::optim {

class SparseOptimizer {
 public:
  virtual ~SparseOptimizer() = default;
  SparseOptimizer(const SparseOptimizer&) = delete;
  SparseOptimizer& operator=(const SparseOptimizer&) = delete;

  virtual const char* name() const = 0;  // "sparse_adamw"

  // Forgets which rows were touched, and their gradients.
  void zero_grad();
  // 0 or more, within f32's range; to be set before the first step.
  void set_learning_rate(double learning_rate);
  // Updates the rows that backward passes reached since zero_grad(), by their gradients × `factor`
  // (1/scale, where a GradScaler scaled the loss). A row that several forward passes touched has
  // the sum. Where a gradient is not finite, nothing is updated and the result is false. Throws
  // Error where no learning rate was set and where no gradient came.
  bool step(double factor = 1);
  // Steps so far, without those that updated nothing.
  int64_t steps_done() const;

  // "step" and, for each table, "exp_avg.<table>" and the like, of the table's shape. load_state
  // throws Error naming what does not fit; nothing is written then.
  nn::StateDict state() const;
  void load_state(const nn::StateDict& saved);

 protected:
  // Every SparseEmbedding in `model`, itself among them, by the name of its weight. They must stay
  // where they are (Module::to) and outlive the optimizer. Throws Error where there is none.
  explicit SparseOptimizer(const nn::Module& model);
  void add_moment(const std::string& name);  // from the constructor; at most two
  virtual void update_rows(const UpdateBuffers& buffers, const UpdateContext& context) = 0;

 private:
  struct Table {
    std::string name;
    const nn::SparseEmbedding* embedding;
    std::vector<Array> moments;  // of the table's shape, one a name
  };
  struct Rows {
    Array index, gradient;  // (U) i64, each once, and (U, dim)
  };
  Rows gathered(const Table& table) const;
  void update(const Table& table, const Rows& rows, const UpdateContext& context);

  std::vector<Table> tables_;
  std::vector<std::string> moments_;
  std::optional<double> learning_rate_;
  Array learning_rate_scalar_, step_scalar_;
};

// AdamW on the touched rows alone. The others keep their weights and moments as they are, without
// decay, until they are touched again; the bias correction counts all steps (as PyTorch's
// SparseAdam). A table whose every row is touched in every step is trained as by AdamW.
class SparseAdamW : public SparseOptimizer {
 public:
  explicit SparseAdamW(const nn::Module& model, const WholeModule& how = {},
                       const AdamWOptions& options = {});
  const char* name() const override { return "sparse_adamw"; }

 private:
  void update_rows(const UpdateBuffers& buffers, const UpdateContext& context) override;
  AdamWOptions options_;
  double weight_decay_;
};

// w ← w − lr·(g + wd·w) on the touched rows: without decay, SGD.
class SparseSgd : public SparseOptimizer {
 public:
  explicit SparseSgd(const nn::Module& model, const WholeModule& how = {});
  const char* name() const override { return "sparse_sgd"; }

 private:
  void update_rows(const UpdateBuffers& buffers, const UpdateContext& context) override;
  double weight_decay_;
};

}  // namespace binade::optim
