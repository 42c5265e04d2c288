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

}  // namespace

std::vector<Row> shape_rows() {
  return {
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
       [](Sample& s) -> TensorList {
         for (const int64_t size : s.sizes(1))
           if (size < 0) throw NotOffered("a size of -1");
         return {expand(s.tensor(0), shape_of(s.sizes(1)))};
       }},
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
         if (s.integers(1, "split_size_or_sections").size() != 1)
           throw NotOffered("a list of sizes");
         return split(s.tensor(0), s.integer(1, "split_size_or_sections"),
                      static_cast<int>(s.integer(2, "dim", 0)));
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
