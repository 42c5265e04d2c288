// Steps of recurrent layers, a row at a time.
#include <binade/core/kernels/recurrent.h>

#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/cpu/recurrent/recurrent_rows.h>

namespace binade::kernels::cpu {
namespace {

// An element costs some exponentials, where a pass over memory reads and writes.
int64_t step_grain(int64_t width) {
  return row_grain(16 * width);
}

template <class C>
void gru(const Array& x, const Array& sums, const Array& bias, const Array& state,
         const Array& next, const Array& kept) {
  const int64_t rows = state.size(0), width = state.size(1);
  const std::vector<C> biases = bias_values<C>(bias, 3 * width);
  const C* b = biases.data();
  const Rows x_rows(x), sum_rows(sums), state_rows(state), next_rows(next),
      kept_rows(kept.defined() ? kept : next);
  parallel_for(rows, step_grain(width), [&](int64_t begin, int64_t end) {
    RowReader<C> x_reader, state_reader;
    RowWriter<C> next_writer, kept_writer;
    std::vector<C> unused(static_cast<size_t>(kept.defined() ? 0 : 4 * width));
    for (int64_t row = begin; row < end; ++row) {
      const C* in = x_reader.read(x_rows[row], x.dtype(), 3 * width);
      const C* s = reinterpret_cast<const C*>(sum_rows[row]);
      const C* h = state_reader.read(state_rows[row], state.dtype(), width);
      C* out = next_writer.target(next_rows[row], next.dtype(), width);
      C* gates = kept.defined() ? kept_writer.target(kept_rows[row], kept.dtype(), 4 * width)
                                : unused.data();
      gru_row(width, in, s, b, h, out, gates);
      next_writer.store();
      if (kept.defined()) kept_writer.store();
    }
  });
}

template <class C>
void gru_backward(const Array& dnext, const Array& kept, const Array& state, const Array& carry,
                  const Array& dx, const Array& dsums) {
  const int64_t rows = state.size(0), width = state.size(1);
  const Rows dnext_rows(dnext), kept_rows(kept), state_rows(state), carry_rows(carry), dx_rows(dx),
      dsum_rows(dsums);
  parallel_for(rows, step_grain(width), [&](int64_t begin, int64_t end) {
    RowReader<C> d_reader, kept_reader, state_reader;
    RowWriter<C> dx_writer, dsum_writer;
    for (int64_t row = begin; row < end; ++row) {
      const C* d = d_reader.read(dnext_rows[row], dnext.dtype(), width);
      const C* gates = kept_reader.read(kept_rows[row], kept.dtype(), 4 * width);
      const C* h = state_reader.read(state_rows[row], state.dtype(), width);
      C* dh = reinterpret_cast<C*>(carry_rows[row]);
      C* to_x = dx_writer.target(dx_rows[row], dx.dtype(), 3 * width);
      C* to_sums = dsum_writer.target(dsum_rows[row], dsums.dtype(), 3 * width);
      gru_row_backward(width, d, gates, h, dh, to_x, to_sums);
      dx_writer.store();
      dsum_writer.store();
    }
  });
}

template <class C>
void lstm(const Array& x, const Array& sums, const Array& bias, const Array& cell,
          const Array& next_cell, const Array& next, const Array& kept) {
  const int64_t rows = cell.size(0), width = cell.size(1);
  const std::vector<C> biases = bias_values<C>(bias, 4 * width);
  const C* b = biases.data();
  const Rows x_rows(x), sum_rows(sums), cell_rows(cell), next_cell_rows(next_cell), next_rows(next),
      kept_rows(kept.defined() ? kept : next);
  parallel_for(rows, step_grain(width), [&](int64_t begin, int64_t end) {
    RowReader<C> x_reader;
    RowWriter<C> next_writer, kept_writer;
    std::vector<C> unused(static_cast<size_t>(kept.defined() ? 0 : 4 * width));
    for (int64_t row = begin; row < end; ++row) {
      const C* in = x_reader.read(x_rows[row], x.dtype(), 4 * width);
      const C* s = reinterpret_cast<const C*>(sum_rows[row]);
      const C* c = reinterpret_cast<const C*>(cell_rows[row]);
      C* next_c = reinterpret_cast<C*>(next_cell_rows[row]);
      C* out = next_writer.target(next_rows[row], next.dtype(), width);
      C* gates = kept.defined() ? kept_writer.target(kept_rows[row], kept.dtype(), 4 * width)
                                : unused.data();
      lstm_row(width, in, s, b, c, next_c, out, gates);
      next_writer.store();
      if (kept.defined()) kept_writer.store();
    }
  });
}

template <class C>
void lstm_backward(const Array& dnext, const Array& carry, const Array& kept, const Array& cell,
                   const Array& next_cell, const Array& dcell, const Array& da) {
  const int64_t rows = cell.size(0), width = cell.size(1);
  const Rows dnext_rows(dnext), carry_rows(carry), kept_rows(kept), cell_rows(cell),
      next_cell_rows(next_cell), dcell_rows(dcell), da_rows(da);
  parallel_for(rows, step_grain(width), [&](int64_t begin, int64_t end) {
    RowReader<C> d_reader, kept_reader;
    RowWriter<C> da_writer;
    for (int64_t row = begin; row < end; ++row) {
      const C* d = d_reader.read(dnext_rows[row], dnext.dtype(), width);
      const C* gates = kept_reader.read(kept_rows[row], kept.dtype(), 4 * width);
      const C* dh = reinterpret_cast<const C*>(carry_rows[row]);
      const C* c = reinterpret_cast<const C*>(cell_rows[row]);
      const C* next_c = reinterpret_cast<const C*>(next_cell_rows[row]);
      C* dc = reinterpret_cast<C*>(dcell_rows[row]);
      C* to_a = da_writer.target(da_rows[row], da.dtype(), 4 * width);
      lstm_row_backward(width, d, dh, gates, c, next_c, dc, to_a);
      da_writer.store();
    }
  });
}

}  // namespace

void gru_step(const Array& x, const Array& sums, const Array& bias, const Array& state,
              const Array& next, const Array& kept) {
  visit_real(x.dtype(), "gru_step", [&]<class C>(C) { gru<C>(x, sums, bias, state, next, kept); });
}

void gru_step_backward(const Array& dnext, const Array& kept, const Array& state,
                       const Array& carry, const Array& dx, const Array& dsums) {
  visit_real(kept.dtype(), "gru_step_backward",
             [&]<class C>(C) { gru_backward<C>(dnext, kept, state, carry, dx, dsums); });
}

void lstm_step(const Array& x, const Array& sums, const Array& bias, const Array& cell,
               const Array& next_cell, const Array& next, const Array& kept) {
  visit_real(x.dtype(), "lstm_step",
             [&]<class C>(C) { lstm<C>(x, sums, bias, cell, next_cell, next, kept); });
}

void lstm_step_backward(const Array& dnext, const Array& carry, const Array& kept,
                        const Array& cell, const Array& next_cell, const Array& dcell,
                        const Array& da) {
  visit_real(kept.dtype(), "lstm_step_backward",
             [&]<class C>(C) { lstm_backward<C>(dnext, carry, kept, cell, next_cell, dcell, da); });
}

}  // namespace binade::kernels::cpu
