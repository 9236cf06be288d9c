#include "matrix.h"

#include <algorithm>
#include <cstring>

namespace bct {
namespace {

// Panels that a task decodes once: what stays in a core's own cache, and few enough for all threads to have some.
constexpr int64_t MOST_PANEL_BYTES = 1 << 19, LEAST_TASKS = 6;
// Codes of rows that all panels of a task are multiplied with before the next.
constexpr int64_t ROW_BYTES = 3 << 16, LEAST_ROWS = 64, MOST_ROWS = 256;
// Where there are few panels, rows are shared out, too: enough to make up for decoding.
constexpr int64_t SHARED_ROWS = 512;
// Rows whose codes and floats lie in a core's own cache, beside a panel, and the fewest that are worth reading all
// panels for.
constexpr int64_t BAND_BYTES = 7 << 18, LEAST_BAND = 32, MOST_BAND = 128;
// With fewer, threads share all rows' columns first.
constexpr int64_t LEAST_BANDS = 3;

// Some rows, from `row` on, times some panels.
Block block_of(const Matrix& matrix, const Rows& rows, int64_t row, int64_t count, int64_t panel, int64_t panels) {
  const Weight& weight = matrix.weight;
  const int64_t first = panel * PANEL, at = row * weight.n + first;
  Block block{};
  block.rows = count;
  block.q = rows.q + row * weight.k;
  block.row_scale = rows.scale + row;
  block.k = weight.k;
  block.column_scale = matrix.column_scale + first;
  block.columns = std::min(PANEL * panels, weight.n - first);
  block.zero_point = matrix.zero_point;
  block.bias = matrix.bias != nullptr ? matrix.bias + first : nullptr;
  block.curve = matrix.curve, block.alpha = matrix.alpha;
  block.residual = rows.residual != nullptr ? rows.residual + at : nullptr;
  if (rows.y != nullptr) block.y = rows.y + at;
  block.stride = weight.n;
  if (matrix.panels != nullptr) {
    block.panel = matrix.panels->codes.get() + panel * padded(weight.k) * PANEL;
    block.sums = matrix.panels->sums.data() + first;
  }
  return block;
}

// The panels of a weight, from the memory of their codes and sums on.
void unpack_into(const Isa& isa, const Call& call, const Weight& weight, uint8_t* codes, int32_t* sums) {
  const int64_t panels = panels_of(weight.n), bytes = padded(weight.k) * PANEL;
  call.parallel(static_cast<size_t>((panels + MOST_PANELS - 1) / MOST_PANELS), [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * MOST_PANELS;
    isa.unpack(weight, first * PANEL, std::min(MOST_PANELS, panels - first), codes + first * bytes, sums + first * PANEL);
  });
}

// Where the codes of a column begin in panels of k rows: four rows' codes lie together, 16 columns' behind each other.
int64_t column_place(int64_t k, int64_t column) {
  const int64_t within = column % PANEL;
  return column / PANEL * padded(k) * PANEL + within / 16 * padded(k) * 16 + within % 16 * 4;
}

// Columns of panels of their own become those from `first` on of other panels.
void move_columns(const Panels& from, int64_t k, int64_t columns, int64_t first, Panels& to) {
  for (int64_t column = 0; column < columns; ++column) {
    const uint8_t* source = from.codes.get() + column_place(k, column);
    uint8_t* target = to.codes.get() + column_place(k, first + column);
    for (int64_t i = 0; i < padded(k) / 4; ++i) std::memcpy(target + 64 * i, source + 64 * i, 4);
    to.sums[static_cast<size_t>(first + column)] = from.sums[static_cast<size_t>(column)];
  }
}

}  // namespace

Panels unpack_all(const Isa& isa, const Call& call, const std::vector<Weight>& parts) {
  int64_t columns = 0;
  for (const Weight& part : parts) columns += part.n;
  const int64_t k = parts.front().k;
  Panels found = make_panels(k, columns);
  int64_t first = 0;
  for (const Weight& part : parts) {
    if (first % PANEL == 0) {
      unpack_into(isa, call, part, found.codes.get() + column_place(k, first), found.sums.data() + first);
    } else {
      const Panels own = unpack_all(isa, call, std::vector<Weight>{part});
      move_columns(own, k, part.n, first, found);
    }
    first += part.n;
  }
  return found;
}

void multiply(const Isa& isa, const Call& call, const Matrix& matrix, const Rows& rows) {
  const Weight& weight = matrix.weight;
  const int64_t panels = panels_of(weight.n), bytes = padded(weight.k) * PANEL;
  const int64_t wide = std::clamp<int64_t>(std::min(MOST_PANEL_BYTES / std::max<int64_t>(bytes, 1), panels / LEAST_TASKS),
                                           1, MOST_PANELS);
  const int64_t together = std::clamp(ROW_BYTES / std::max<int64_t>(weight.k, 1) / 32 * 32, LEAST_ROWS, MOST_ROWS);
  const int64_t groups = (panels + wide - 1) / wide;
  const int64_t share = groups < LEAST_TASKS ? std::min(rows.rows, SHARED_ROWS) : rows.rows;
  const int64_t shares = (rows.rows + share - 1) / share;
  call.parallel(static_cast<size_t>(groups * shares), [&](size_t task) {
    const int64_t group = static_cast<int64_t>(task) / shares * wide, count = std::min(wide, panels - group);
    const int64_t begin = static_cast<int64_t>(task) % shares * share, end = std::min(rows.rows, begin + share);
    alignas(64) int32_t own_sums[MOST_PANELS * PANEL];
    const uint8_t* codes = nullptr;
    const int32_t* sums = own_sums;
    if (matrix.panels != nullptr) {
      codes = matrix.panels->codes.get() + group * bytes, sums = matrix.panels->sums.data() + group * PANEL;
    } else {
      auto* own_codes = static_cast<uint8_t*>(scratch(PANELS, static_cast<size_t>(bytes * count)));
      isa.unpack(weight, group * PANEL, count, own_codes, own_sums);
      codes = own_codes;
    }
    for (int64_t row = begin; row < end; row += together) {
      Block block = block_of(matrix, rows, row, std::min(together, end - row), group, count);
      block.panel = codes, block.sums = sums;
      isa.multiply(block);
    }
  });
}

void multiply(const Isa& isa, const Call& call, const Matrix& matrix, const Rows& rows, const RowEnding& ending) {
  const Weight& weight = matrix.weight;
  const int64_t n = weight.n, row_bytes = weight.k + n * static_cast<int64_t>(sizeof(float));
  const int64_t band = std::clamp(BAND_BYTES / row_bytes / 32 * 32, LEAST_BAND, MOST_BAND);
  const int64_t bands = (rows.rows + band - 1) / band, panels = panels_of(n);
  const int64_t wide = std::max<int64_t>(1, MOST_PANEL_BYTES / 2 / std::max<int64_t>(padded(weight.k) * PANEL, 1));
  auto floats = [n](int64_t count) {
    return static_cast<float*>(scratch(RESULTS, static_cast<size_t>(count * n) * sizeof(float)));
  };
  if (bands < LEAST_BANDS || matrix.panels == nullptr) {
    Rows all = rows;
    all.y = floats(rows.rows);
    multiply(isa, call, matrix, all);
    return ending.finish_all(call, all.y, rows.rows);
  }
  call.parallel(static_cast<size_t>(bands), [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * band, count = std::min(band, rows.rows - first);
    float* some = floats(count);
    for (int64_t panel = 0; panel < panels; panel += wide) {
      Block block = block_of(matrix, rows, first, count, panel, std::min(wide, panels - panel));
      block.y = some + panel * PANEL;
      isa.multiply(block);
    }
    for (int64_t row = 0; row < count; ++row) ending.finish(some + row * n, first + row);
  });
}

}  // namespace bct
