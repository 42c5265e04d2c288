#include <optional>

#include <binade/autograd/create.h>

#include "sample.h"

namespace binade::opinfo {

namespace {

Shape shape_of(const std::vector<int64_t>& sizes) {
  Shape shape;
  for (const int64_t size : sizes) shape.push_back(size);
  return shape;
}

int dim_of(Sample& s, int position, const char* name = "dim") {
  return static_cast<int>(s.integer(position, name));
}

TensorList reshaped(Sample& s) {
  return {reshape(s.tensor(0), shape_of(s.sizes(1)))};
}

TensorList copied(Sample& s) {
  s.only(-1, "memory_format", "torch.contiguous_format");
  return {clone(s.tensor(0))};
}

PadMode mode_of(const std::string& name) {
  if (name == "constant") return PadMode::constant;
  if (name == "reflect") return PadMode::reflect;
  if (name == "replicate") return PadMode::replicate;
  if (name == "circular") return PadMode::circular;
  throw NotOffered("padding " + name);
}

ScatterReduce fold_of(const std::string& name) {
  if (name == "sum") return ScatterReduce::sum;
  if (name == "prod") return ScatterReduce::prod;
  if (name == "mean") return ScatterReduce::mean;
  if (name == "amax") return ScatterReduce::amax;
  if (name == "amin") return ScatterReduce::amin;
  throw NotOffered("the fold " + name);
}

Row triangle(const char* op, Tensor (*function)(const Tensor&, int64_t)) {
  return {op, [function](Sample& s) -> TensorList {
            return {function(s.tensor(0), s.integer(1, "diagonal", 0))};
          }};
}

std::vector<int> dims_of(const std::vector<int64_t>& dims) {
  return std::vector<int>(dims.begin(), dims.end());
}

// zeros(sizes), ones(sizes) and full(sizes, value).
Row filled(const char* op, std::optional<double> value) {
  return {op, [value](Sample& s) -> TensorList {
            s.given(-1, "device");
            const DType dtype = s.dtype(-1, "dtype", DType::f32);
            const Shape shape = shape_of(s.integers(0));
            return {Tensor::full(shape, value ? *value : s.number(1, "fill_value"), dtype)};
          }};
}

}  // namespace

std::vector<Row> shape_rows() {
  return {
      filled("zeros", 0),
      filled("ones", 1),
      filled("full", std::nullopt),
      {"to",
       [](Sample& s) -> TensorList {
         s.only(-1, "memory_format", "torch.preserve_format");
         if (s.is_tensor(1)) throw NotOffered("the dtype of a tensor");
         const bool named = s.text(1, "", "") == "cpu" || s.text(1, "", "") == "cuda";
         const int position = named ? 2 : 1;
         const DType dtype = s.dtype(position, "dtype", s.tensor(0).dtype());
         for (const int more : {1, 2}) s.flag(position + more, "", false);  // how, not what
         return {to(s.tensor(0), dtype)};
       }},
      {"slice",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         const int dim = static_cast<int>(s.integer(1, "dim", 0));
         const auto from_front = [&](int64_t place) {  // ours are counted from the front
           return place < 0 ? place + x.size(dim) : place;
         };
         return {slice(x, dim, from_front(s.integer(2, "start", 0)),
                       from_front(s.integer(3, "end", x.size(dim))), s.integer(4, "step", 1))};
       }},
      {"nn.functional.one_hot",
       [](Sample& s) -> TensorList {
         const int64_t classes = s.integer(1, "num_classes", -1);
         if (classes < 0) throw NotOffered("classes counted from the data");
         return {one_hot(s.tensor(0), classes)};
       }},
      {"arange",
       [](Sample& s) -> TensorList {
         const DType dtype = s.dtype(-1, "dtype", DType::i64);
         s.given(-1, "device");
         if (!s.given(1, "end")) return {arange(0, s.number(0), 1, dtype)};
         return {arange(s.number(0), s.number(1, "end"), s.number(2, "step", 1), dtype)};
       }},
      {"linspace",
       [](Sample& s) -> TensorList {
         s.given(-1, "device");
         const DType dtype = s.dtype(-1, "dtype", DType::f32);
         if (!is_floating(dtype)) throw NotOffered("integers");
         return {linspace(s.number(0), s.number(1, "end"), s.integer(2, "steps"), dtype)};
       }},
      {"eye",
       [](Sample& s) -> TensorList {
         s.given(-1, "device");
         s.only(-1, "requires_grad", false);
         const DType dtype = s.dtype(-1, "dtype", DType::f32);
         const int64_t rows = s.integer(0);
         return {eye(rows, s.integer(1, "m", rows), dtype)};
       }},
      {"flip",
       [](Sample& s) -> TensorList {
         const auto dims = s.given(-1, "dims") ? s.integers(-1, "dims") : s.sizes(1);
         return {flip(s.tensor(0), dims_of(dims))};
       }},
      {"roll",
       [](Sample& s) -> TensorList {
         const std::vector<int64_t> shifts = s.integers(1, "shifts");
         if (!s.given(2, "dims")) return {roll(s.tensor(0), shifts)};
         return {roll(s.tensor(0), shifts, dims_of(s.integers(2, "dims")))};
       }},
      {"repeat", [](Sample& s) -> TensorList { return {repeat(s.tensor(0), s.sizes(1))}; }},
      {"repeat_interleave",
       [](Sample& s) -> TensorList {
         Tensor x = s.tensor(0);
         const bool flat = !s.given(2, "dim");
         if (flat) x = flatten(x);
         if (x.dims() == 0) throw NotOffered("a scalar");
         const int dim = flat ? 0 : dim_of(s, 2);
         if (s.is_tensor(1, "repeats")) {
           const Tensor repeats = s.tensor(1, "repeats");
           if (repeats.numel() != x.size(dim)) throw NotOffered("repeats that broadcast");
           return {repeat_interleave(x, repeats, dim)};
         }
         return {repeat_interleave(x, s.integer(1, "repeats"), dim)};
       }},
      {"nn.functional.pad",
       [](Sample& s) -> TensorList {
         const std::vector<int64_t> padding = s.integers(1, "pad");
         const PadMode mode = mode_of(s.text(2, "mode", "constant"));
         for (const int64_t size : padding)
           if (size < 0 && mode != PadMode::constant) throw NotOffered("padding below 0");
         return {pad(s.tensor(0), padding, mode, s.number(3, "value", 0))};
       }},
      triangle("tril", tril),
      triangle("triu", triu),
      {"masked_select",
       [](Sample& s) -> TensorList { return {masked_select(s.tensor(0), s.tensor(1, "mask"))}; }},
      {"index_put",
       [](Sample& s) -> TensorList {
         const TensorList indices = s.tensors(1, "indices");
         for (const Tensor& index : indices)
           if (index.dtype() == DType::boolean) throw NotOffered("masks");
         return {index_put(s.tensor(0), indices, s.tensor(2, "values"),
                           s.flag(3, "accumulate", false))};
       }},
      {"scatter_reduce",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         const Tensor index = s.tensor(2, "index"), source = s.tensor(3, "src");
         if (index.shape() != source.shape()) throw NotOffered("a source larger than its index");
         return {scatter_reduce(s.tensor(0), dim_of(s, 1), index, source,
                                fold_of(s.text(4, "reduce", "")),
                                s.flag(-1, "include_self", true))};
       }},
      {"searchsorted",
       [](Sample& s) -> TensorList {
         if (s.given(-1, "sorter")) throw NotOffered("a sorter");
         s.only(-1, "out_int32", false);
         const bool right = s.flag(-1, "right", false) || s.text(-1, "side", "left") == "right";
         return {searchsorted(s.tensor(0), s.tensor(1, "self"), right)};
       }},
      {"reshape", reshaped},
      {"view", reshaped},
      {"transpose",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         return {transpose(s.tensor(0), dim_of(s, 1, "dim0"), dim_of(s, 2, "dim1"))};
       }},
      {"permute",
       [](Sample& s) -> TensorList {
         std::vector<int> order;
         for (const int64_t dim : s.sizes(1)) order.push_back(static_cast<int>(dim));
         return {permute(s.tensor(0), order)};
       }},
      {"narrow",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         if (s.is_tensor(2, "start")) throw NotOffered("a tensor as start");
         const int dim = dim_of(s, 1);
         int64_t start = s.integer(2, "start");
         const int64_t length = s.integer(3, "length");
         if (start < 0) start += x.size(dim);
         return {slice(x, dim, start, start + length)};
       }},
      {"select",
       [](Sample& s) -> TensorList {
         return {select(s.tensor(0), dim_of(s, 1), s.integer(2, "index"))};
       }},
      {"unsqueeze", [](Sample& s) -> TensorList { return {unsqueeze(s.tensor(0), dim_of(s, 1))}; }},
      {"squeeze",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         if (!s.given(1, "dim")) throw NotOffered("every dimension of size 1");
         const auto dims = s.integers(1, "dim");
         if (dims.size() != 1) throw NotOffered("several dimensions");
         if (x.dims() == 0) throw NotOffered("a scalar");
         if (x.size(static_cast<int>(dims[0])) != 1) throw NotOffered("a dimension that is not 1");
         return {squeeze(x, static_cast<int>(dims[0]))};
       }},
      {"expand",
       [](Sample& s) -> TensorList { return {expand(s.tensor(0), shape_of(s.sizes(1)))}; }},
      {"flatten",
       [](Sample& s) -> TensorList {
         return {flatten(s.tensor(0), static_cast<int>(s.integer(1, "start_dim", 0)),
                         static_cast<int>(s.integer(2, "end_dim", -1)))};
       }},
      {"contiguous", copied},
      {"clone", copied},
      {"cat",
       [](Sample& s) -> TensorList {
         return {cat(s.tensors(0), static_cast<int>(s.integer(1, "dim", 0)))};
       }},
      {"stack",
       [](Sample& s) -> TensorList {
         return {stack(s.tensors(0), static_cast<int>(s.integer(1, "dim", 0)))};
       }},
      {"split",
       [](Sample& s) -> TensorList {
         const std::vector<int64_t> sizes = s.integers(1, "split_size_or_sections");
         const int dim = static_cast<int>(s.integer(2, "dim", 0));
         if (sizes.size() == 1) return split(s.tensor(0), sizes[0], dim);
         return split(s.tensor(0), sizes, dim);
       }},
      {"split_with_sizes",
       [](Sample& s) -> TensorList {
         return split(s.tensor(0), s.integers(1, "split_sizes"),
                      static_cast<int>(s.integer(2, "dim", 0)));
       }},
      {"chunk",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         return chunk(s.tensor(0), s.integer(1, "chunks"),
                      static_cast<int>(s.integer(2, "dim", 0)));
       }},
      {"bincount",
       [](Sample& s) -> TensorList {
         Tensor weights;
         if (s.given(1, "weights")) weights = s.tensor(1, "weights");
         return {bincount(s.tensor(0), weights, s.integer(2, "minlength", 0))};
       }},
      {"gather",
       [](Sample& s) -> TensorList {
         s.flag(3, "sparse_grad", false);
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         return {gather(s.tensor(0), dim_of(s, 1), s.tensor(2, "index"))};
       }},
      {"scatter",
       [](Sample& s) -> TensorList {
         s.only(-1, "reduce", nullptr);
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         if (!s.is_tensor(3, "src")) throw NotOffered("a number as source");
         const Tensor index = s.tensor(2, "index"), source = s.tensor(3, "src");
         if (index.shape() != source.shape()) throw NotOffered("a source larger than its index");
         return {scatter(s.tensor(0), dim_of(s, 1), index, source)};
       }},
      {"scatter_add",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         const Tensor index = s.tensor(2, "index"), source = s.tensor(3, "src");
         if (index.shape() != source.shape()) throw NotOffered("a source larger than its index");
         return {scatter_add(s.tensor(0), dim_of(s, 1), index, source)};
       }},
      {"index_select",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         if (s.tensor(2, "index").dims() != 1) throw NotOffered("a scalar as index");
         return {index_select(s.tensor(0), dim_of(s, 1), s.tensor(2, "index"))};
       }},
      {"index_add",
       [](Sample& s) -> TensorList {
         s.only(-1, "alpha", 1);
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         if (s.tensor(2, "index").dims() != 1) throw NotOffered("a scalar as index");
         return {index_add(s.tensor(0), dim_of(s, 1), s.tensor(2, "index"), s.tensor(3, "source"))};
       }},
  };
}

}  // namespace binade::opinfo
