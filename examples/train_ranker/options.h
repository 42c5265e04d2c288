// The options of train_ranker, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include <binade/heads/rank/losses.h>
#include <binade/heads/rank/ranker.h>

#include "../ranked_lists.h"
#include "../training/options.h"

namespace binade::examples {

struct TrainRankerOptions : TrainingOptions, LineOptions {
  TrainRankerOptions() {
    run_dir = "runs/train_ranker";
    batch_size = 16;
    steps = 2000;
    validate_every = 100;
    weight_decay = 0.01;
    beta2 = 0.999;
  }

  // data
  std::vector<std::string> train, valid, test;
  std::string fold;
  bool group_by_qid = false, cache = false;
  int64_t longest_list = 0;
  std::string weights, list_weights;
  std::string scaling = "log1p,zscore";
  double epochs = 0;
  // model
  std::string model = "mlp", loss = "lambdarank";
  std::vector<int64_t> hidden = {256, 128, 64};
  std::string norm = "layer";
  bool input_norm = false;
  double dropout = 0.1, noise = 0;
  int64_t dim = 128, blocks = 2, heads = 2;
  std::string init;
  // judging
  std::vector<std::string> metrics = {"ndcg@10"};
  std::string convention = "skip";
  int64_t patience = 10;
  // what is left in the end
  std::string save, test_scores;
};

inline void add_options(CommandLine& command, TrainRankerOptions& o) {
  command.set_footer("Losses (--loss NAME:parameter=value,…):\n\n" +
                     heads::rank::describe_losses());

  OptionGroup group{command, "Data"};
  group.add("--train", o.train, "Files of LETOR or SVMlight lines to train on");
  group.add("--valid", o.valid, "Files to validate on, which choose the best ranker");
  group.add("--test", o.test, "Files to judge the best ranker by, at the end");
  group.add("--fold", o.fold, "A folder with train.txt, vali.txt and test.txt, in their place");
  group.add("--group-by-qid", o.group_by_qid,
            "Bring lines of one query together that are apart in a file");
  group.add("--cache", o.cache, "Keep what was parsed beside the files, and read that next time");
  add_line_options(group, o);
  group
      .add("--longest-list", o.longest_list,
           "Train on so many documents a list at most, a sample of longer ones; 0: all")
      .at_least(0);
  group.add(
      "--weights", o.weights,
      "File with a weight for each document of --train, a number a line (inverse propensity)");
  group.add("--list-weights", o.list_weights,
            "File with a weight for each list of --train, a number a line");
  group.add("--scaling", o.scaling,
            "Of features, fitted on --train: clip=Q, log1p, zscore or minmax, limit=L; or none");

  group.name = "Model";
  group
      .add("--model", o.model,
           "linear, mlp, attention, or dasalc: an mlp beside attention, with latent cross")
      .one_of(heads::rank::ranker_kinds());
  group.add("--loss", o.loss, "What is learned, see below");
  group.add("--hidden", o.hidden, "Widths of the layers of mlp and dasalc").at_least(1);
  group.add("--norm", o.norm, "In front of each activation: none, layer or batch")
      .one_of(heads::rank::ranker_norms());
  group.add("--input-norm", o.input_norm, "Batch norm of the features");
  group.add("--dropout", o.dropout, "Behind each activation").range(0.0, 0.99);
  group.add("--noise", o.noise, "Standard deviation of noise on features, while training")
      .range(0.0, 100.0);
  group.add("--dim", o.dim, "Width of attention").at_least(1);
  group.add("--blocks", o.blocks, "Blocks of attention").at_least(1);
  group.add("--heads", o.heads, "Heads of attention").at_least(1);
  group.add("--init", o.init, "Start from this saved ranker, with its scaling");

  group.name = "Judging";
  group.add("--metrics", o.metrics,
            "ndcg@K, map, mrr@K, err, p@K, arp; the first chooses the best ranker");
  group.add("--convention", o.convention, convention_help(/*named=*/false));
  group
      .add("--patience", o.patience,
           "Validations without a better one after which training ends; 0: never")
      .at_least(0);

  add_training_options(command, o);
  command.option("--batch-size").describe("Lists a step, over all micro-batches");
  command.remove("--seq-len");
  group.name = "Training";
  group.add("--epochs", o.epochs, "Passes over the lists, in place of --steps; 0: --steps").rate();
  group.name = "Run";
  group.add("--save", o.save, "Write the best ranker to this folder at the end");
  group.add("--test-scores", o.test_scores, "Write its scores of --test to this file, a line each");
}

}  // namespace binade::examples
