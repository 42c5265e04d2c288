// Says how well a model of train_bagel reads and draws: the table of docs/unified.md.
//
//   judge_bagel --model DIR --sheet drawings.png
#include <binade/binade.h>

#include "common.h"
#include "device.h"
#include "judge_bagel/metrics.h"

using namespace binade;

namespace {

struct Options {
  std::string model, data = "/usr/share/datasets/fashion-mnist", device = "auto",
                     precision = "fp32", judge, sheet;
  int64_t drawings = 2000, judge_steps = 1400, validation_packs = 8;
};

void judge_bagel(const Options& o) {
  const Device device = examples::choose_device(o.device);
  const amp::Preset preset = amp::Preset::parse(o.precision);
  const auto model = nn::load_mot(o.model);
  model->to(device);
  preset.apply(*model);
  model->eval();
  const heads::flow::Artist artist = examples::artist_of(*model, device, preset);
  const auto training = examples::World::read(o.data, "train"),
             held_out = examples::World::read(o.data, "t10k");
  const auto judge = examples::make_judge(training, o.judge_steps, device, o.judge);
  const auto print = [](const examples::Metrics& metrics) {
    for (const auto& [name, value] : metrics) examples::say("{:<22}{:>10.4f}\n", name, value);
  };
  const train::Validation validation =
      heads::flow::validate(*model,
                            examples::validation_packs(
                                [&](data::RandomStream& random) { return held_out.sample(random); },
                                artist.layout, o.validation_packs),
                            {}, device, preset);
  print({{"val_mse", validation.scalars.at("mse")}, {"val_ce", validation.scalars.at("ce")}});
  const examples::Exam exam = examples::make_exam(held_out, *judge, device, o.drawings);
  print(examples::judge_itself(exam));
  std::vector<Array> sheet;
  print(examples::judge_drawings(exam, artist, sheet));
  if (!o.sheet.empty()) data::write_png(o.sheet, data::contact_sheet(sheet, 10));
  print(examples::judge_edits(exam, artist));
  print(examples::judge_captions(exam, artist));
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Says how well a model of train_bagel reads and draws");
  Options o;
  command.add("--model", o.model, "Folder of train_bagel --save").required();
  command.add("--data", o.data, "Folder with Fashion-MNIST's four IDX files");
  command.add("--device", o.device, "auto, cpu, cuda or cuda:N");
  command.add("--precision", o.precision, "fp32, fp16 or bf16").one_of({"fp32", "fp16", "bf16"});
  command.add("--drawings", o.drawings, "Drawings of each kind").range(10, 5000);
  command.add("--judge-steps", o.judge_steps, "Steps that the judge is trained for").at_least(1);
  command.add("--judge", o.judge,
              "File of the judge's weights: read, or written if it is not there");
  command.add("--validation-packs", o.validation_packs, "Packs of 4 held-out rows").range(1, 1000);
  command.add("--sheet", o.sheet, "Write the first 80 drawings as this PNG");
  return examples::run_program(command, argc, argv, [&] { judge_bagel(o); });
}
