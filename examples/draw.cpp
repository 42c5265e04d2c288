// Draws with a model of train_bagel, edits pictures, and says what is in them.
//
//   draw --model DIR --text "a red coat" "a blue bag and a green dress" --output sheet.png
//   draw --model DIR --image picture.png --text "make it blue" --output edited.png
//   draw --model DIR --image picture.png --ask "describe"
#include <binade/binade.h>

#include "bagel/prompts.h"
#include "common.h"
#include "device.h"

using namespace binade;

namespace {

namespace flow = heads::flow;

struct Options {
  std::string model, device = "auto", precision = "fp32", output = "drawing.png", renorm;
  std::vector<std::string> text, image;
  std::string ask;
  double text_scale = 4, image_scale = 0, low = -1, high = 1, least_renorm = 0, shift = 3;
  int64_t points = 50, samples = 1, columns = 8, height = 0, width = 0, longest = 64;
  uint64_t seed = 0;
};

// BAGEL's defaults: those of its edits where a picture is given.
flow::DrawOptions draw_options(const Options& o) {
  const bool edits = !o.image.empty();
  flow::DrawOptions draw;
  draw.guidance.text_scale = o.text_scale;
  draw.guidance.image_scale = o.image_scale > 0 ? o.image_scale : edits ? 2 : 1.5;
  draw.guidance.renorm = flow::parse_renorm(!o.renorm.empty() ? o.renorm
                                            : edits           ? "text_channel"
                                                              : "global");
  draw.guidance.least_renorm = o.least_renorm;
  draw.guidance.low = o.low >= 0 ? o.low : edits ? 0 : .4;
  draw.guidance.high = o.high;
  draw.points = o.points;
  draw.shift = o.shift;
  draw.seed = o.seed;
  return draw;
}

using examples::Texts;

// Of the picture that a text asks for, in pixels.
int64_t width_of(const std::string& text, const Texts& texts) {
  return examples::kItemSize * (texts.are_words() ? examples::items_in(text) : 1);
}

void ask(const Options& o, const flow::Artist& artist, const Texts& texts) {
  check(!o.image.empty(), "--ask needs an --image to be asked about");
  for (const std::string& file : o.image) {
    const auto answers = flow::answer(
        artist, {examples::question_context(data::read_picture(file), texts.ids(o.ask))},
        o.longest);
    examples::say("{}: {}\n", file, texts.text(answers[0]));
  }
}

void draw(const Options& o, const flow::Artist& artist, const Texts& texts) {
  check(!o.text.empty(), "give --text with what is to be drawn, or --ask with a question");
  const flow::DrawOptions draw = draw_options(o);
  std::vector<Array> pictures;
  const auto add = [&](const data::Sample& context, int64_t height, int64_t width) {
    const std::vector<data::Sample> all(static_cast<size_t>(o.samples), context);
    for (const Array& picture : examples::draw_pictures(artist, all, o.height ? o.height : height,
                                                        o.width ? o.width : width, draw))
      pictures.push_back(picture);
  };
  for (const std::string& text : o.text) {
    if (o.image.empty())
      add(examples::draw_context(texts.ids(text)), examples::kItemSize, width_of(text, texts));
    for (const std::string& file : o.image) {
      const Array picture = data::read_picture(file);
      pictures.push_back(picture);
      add(examples::edit_context(picture, texts.ids(text)), picture.size(1), picture.size(2));
    }
  }
  data::write_png(o.output, data::contact_sheet(pictures, o.columns));
  examples::say("{} pictures in {}\n", pictures.size(), o.output);
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Draws, edits and describes pictures with a model of train_bagel");
  Options o;
  command.add("--model", o.model, "Folder of train_bagel --save").required();
  command.add("--device", o.device, "auto, cpu, cuda or cuda:N");
  command.add("--precision", o.precision, "fp32, fp16 or bf16").one_of({"fp32", "fp16", "bf16"});
  command.add("--text", o.text, "What is to be drawn, or done to every --image");
  command.add("--image", o.image, "PNG or JPEG pictures to edit, or to ask about");
  command.add("--ask", o.ask, "A question about every --image");
  command.add("--longest", o.longest, "Ids of an answer at most").range(1, 10000);
  command.add("--output", o.output, "The contact sheet, a PNG");
  command.add("--columns", o.columns, "Pictures a row of it").range(1, 1000);
  command.add("--samples", o.samples, "Drawings of each text").range(1, 1000);
  command.add("--height", o.height, "Of a drawing in pixels; 0: 32, or that of --image")
      .at_least(0);
  command.add("--width", o.width, "Likewise; 0: 32 for each item of the text, or that of --image")
      .at_least(0);
  command.add("--text-scale", o.text_scale, "Guidance by the text; 1: none").rate();
  command.add("--image-scale", o.image_scale, "Guidance by the image; 0: 1.5, for edits 2").rate();
  command.add("--renorm", o.renorm,
              "none, global, channel or text_channel; default: global, for edits text_channel");
  command.add("--least-renorm", o.least_renorm, "Lowest factor of it").fraction();
  command.add("--low", o.low, "Times above which there is guidance; default: 0.4, for edits 0");
  command.add("--high", o.high, "Times up to which there is").fraction();
  command.add("--points", o.points, "Points in time; one Euler step less").range(2, 1000);
  command.add("--shift", o.shift, "Of the times towards noise").rate();
  command.add("--seed", o.seed, "Of the noise");
  return examples::run_program(command, argc, argv, [&] {
    const Device device = examples::choose_device(o.device);
    const amp::Preset preset = amp::Preset::parse(o.precision);
    const auto model = nn::load_mot(o.model);
    model->to(device);
    preset.apply(*model);
    model->eval();
    const Texts texts = Texts::of_model(o.model, model->config().vocab_size);
    const flow::Artist artist = examples::artist_of(*model, device, preset, texts);
    o.ask.empty() ? draw(o, artist, texts) : ask(o, artist, texts);
  });
}
