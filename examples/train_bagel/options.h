// The options of train_bagel, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>

#include "../bagel/world.h"
#include "../training/options.h"

#include <binade/nn/mot/model.h>

namespace binade::examples {

struct TrainBagelOptions : TrainingOptions {
  TrainBagelOptions() {
    run_dir = "runs/train_bagel";
    batch_size = 16;
    steps = 6000;
    schedule = "constant";
    warmup = 250;
    weight_decay = 0;
    eps = 1e-15;
    ema = .999;
    validate_every = 1000;
    checkpoint_every = 1000;
  }

  std::string data = "/usr/share/datasets/fashion-mnist", tokenizer;
  int64_t workers = 8, validation_packs = 8;
  std::string architecture = "mot", preset = "small";
  int64_t dim = 0, layers = 0, hidden = 0;  // 0: the preset's, as is
  int64_t understanding = 0, generation = 0, vit = 0;
  double shift = 1, ce_share = .25;
  int64_t drawings = 16;
  std::string save;
};

// What a preset is: a model, and the slots of a row.
struct BagelPreset {
  nn::MotConfig model;
  data::SlotLayout layout;
};

inline BagelPreset preset_of(const TrainBagelOptions& o) {
  BagelPreset preset{{}, world_layout()};
  preset.model.pixels = preset.layout.pixels;
  preset.model.latents = preset.layout.latents;
  if (o.preset == "tiny") {  // for two cores
    preset.model.block = {.dim = 128, .heads = 8, .kv_heads = 4, .hidden = 352};
    preset.model.layers = 4;
    preset.model.vit = {.dim = 64, .layers = 2, .heads = 2, .hidden = 256};
    preset.layout.understanding = 192;
    preset.layout.generation = 320;
    preset.layout.vit = 160;
  }
  if (o.dim > 0) preset.model.block.dim = o.dim;
  if (o.layers > 0) preset.model.layers = o.layers;
  if (o.hidden > 0) preset.model.block.hidden = o.hidden;
  if (o.understanding > 0) preset.layout.understanding = o.understanding;
  if (o.generation > 0) preset.layout.generation = o.generation;
  if (o.vit > 0) preset.layout.vit = o.vit;
  preset.model.block.experts = nn::parse_expert_choice(o.architecture);
  return preset;
}

inline void add_options(CommandLine& command, TrainBagelOptions& o) {
  OptionGroup group{command, "Data"};
  group.add(
      "--data", o.data,
      "Folder with Fashion-MNIST's four IDX files, or a JSONL file of samples (docs/unified.md)");
  group.add("--tokenizer", o.tokenizer,
            "Folder or file of a tokenizer with BAGEL's marks for the texts of a JSONL file; "
            "without: bytes");
  group.add("--workers", o.workers, "Threads that pack rows ahead").range(1, 64);
  group.add("--validation-packs", o.validation_packs, "Packs of 4 held-out rows to validate on")
      .range(1, 1000);

  group.name = "Model";
  group
      .add("--architecture", o.architecture,
           "What latents have of their own: nothing (dense), MLPs (moe) or every layer (mot)")
      .one_of({"dense", "moe", "mot"});
  group
      .add("--preset", o.preset,
           "small: width 256, 6 layers, rows of 1024 slots; tiny: 128, 4 layers, 512 slots")
      .one_of({"small", "tiny"});
  group.add("--dim", o.dim, "Width; 0: the preset's").at_least(0);
  group.add("--layers", o.layers, "Layers; 0: the preset's").at_least(0);
  group.add("--hidden", o.hidden, "Width of the MLPs; 0: the preset's").at_least(0);

  group.add("--understanding", o.understanding, "Slots of a row for texts and what the ViT sees")
      .at_least(0);
  group.add("--generation", o.generation, "Slots of a row for latents").at_least(0);
  group.add("--vit", o.vit, "Patches of a row for the ViT").at_least(0);

  add_training_options(command, o);
  command.option("--batch-size").describe("Packed rows a step, over all micro-batches");
  command.remove("--seq-len");
  group.name = "Training";
  group.add("--shift", o.shift, "Of the times towards noise").rate();
  group.add("--ce-share", o.ce_share, "Weight of the cross-entropy beside the MSE of the flow")
      .rate();
  group.name = "Run";
  group
      .add("--drawings", o.drawings,
           "Pictures drawn at every validation, into drawings/ of the run folder")
      .range(0, 1000);
  group.add("--save", o.save, "Write the averaged model to this folder at the end");
}

}  // namespace binade::examples
