// IntegerMatMul: passes/activation_matmul/function.py.

#include <algorithm>
#include <cstring>

#include "isa.h"
#include "operator.h"

namespace bct {
namespace {

constexpr float SMALLEST_PEAK = 1e-30F, STEP = static_cast<float>(1.0 / 127);
constexpr RowCodes CODES_OF_ROWS{false, 128, SMALLEST_PEAK, STEP};
// The longest sum of products of codes that 32 bits hold: LONGEST_SUM of passes/functions/quantize_rows.py.
constexpr int64_t LONGEST_SUM = INT32_MAX / (255 * 128);
// Where there are few matrices, their rows are shared out; rows that are multiplied at a time.
constexpr int64_t LEAST_TASKS = 4, SHARED_ROWS = 128, TOGETHER = 128;

// The place of a matrix among those of a tensor, whose axes of one broadcast to `batch`.
int64_t place_in(const Shape& own, const Shape& batch, int64_t index) {
  int64_t found = 0, apart = 1;
  for (size_t i = 1; i <= batch.size(); ++i) {
    const int64_t length = batch[batch.size() - i];
    if (i + 2 <= own.size()) {
      const int64_t there = own[own.size() - 2 - i];
      if (there != 1) found += index % length * apart;
      apart *= there;
    }
    index /= length;
  }
  return found;
}

// The axes before the last two of the product of two shapes; Error where they do not broadcast.
Shape batch_of(const Shape& a, const Shape& b) {
  const size_t rank = std::max(a.size(), b.size()) - 2;
  Shape batch(rank, 1);
  for (const Shape* shape : {&a, &b}) {
    for (size_t i = 0; i + 2 < shape->size(); ++i) {
      int64_t& length = batch[rank - (shape->size() - 2) + i];
      require(length == (*shape)[i] || length == 1 || (*shape)[i] == 1, "a and b do not broadcast");
      if (length == 1) length = (*shape)[i];
    }
  }
  return batch;
}

class IntegerMatMul : public Kernel {
 public:
  void compute(const Call& call) override {
    const Tensor a = call.input(0), b = call.input(1);
    require(a.shape.size() >= 2 && b.shape.size() >= 2, "a or b is no matrix");
    const int64_t m = a.shape[a.shape.size() - 2], k = a.shape.back(), n = b.shape.back();
    require(b.shape[b.shape.size() - 2] == k, "a and b differ in k");
    require(k <= LONGEST_SUM, "k is too long for sums in integers");
    const Shape batch = batch_of(a.shape, b.shape);
    Shape y_shape = batch;
    y_shape.push_back(m), y_shape.push_back(n);
    auto* y = call.output<float>(0, y_shape);
    const int64_t size = elements(y_shape);
    if (size == 0) return;
    if (k == 0) return void(std::memset(y, 0, static_cast<size_t>(size) * sizeof(float)));
    const int64_t total = size / (m * n), share = total < LEAST_TASKS ? std::min(m, SHARED_ROWS) : m;
    const int64_t shares = (m + share - 1) / share;
    call.parallel(static_cast<size_t>(total * shares), [&](size_t task) {
      const int64_t matrix = static_cast<int64_t>(task) / shares, row = static_cast<int64_t>(task) % shares * share;
      const float* rows = a.as<float>() + (place_in(a.shape, batch, matrix) * m + row) * k;
      const float* columns = b.as<float>() + place_in(b.shape, batch, matrix) * k * n;
      multiply(rows, std::min(share, m - row), {columns, k, n, SMALLEST_PEAK, STEP}, y + (matrix * m + row) * n);
    });
  }

 private:
  void multiply(const float* a, int64_t rows, const FloatColumns& b, float* y) const {
    const int64_t depth = (b.k + 3) / 4 * 4, panels = (b.n + PANEL - 1) / PANEL, bytes = padded(b.k) * PANEL;
    auto* panel = static_cast<uint8_t*>(scratch(PANELS, static_cast<size_t>(panels * bytes)));
    auto* sums = static_cast<int32_t*>(scratch(PLACES, static_cast<size_t>(panels * PANEL) * sizeof(int32_t)));
    auto* scales = static_cast<float*>(scratch(SCALES, static_cast<size_t>(panels * PANEL + TOGETHER) * sizeof(float)));
    auto* q = static_cast<uint8_t*>(scratch(CODES, static_cast<size_t>(TOGETHER * depth)));
    float* row_scales = scales + panels * PANEL;
    for (int64_t i = 0; i < panels; ++i) {
      isa_.pack_columns(b, i * PANEL, panel + i * bytes, sums + i * PANEL, scales + i * PANEL);
    }
    for (int64_t first = 0; first < rows; first += TOGETHER) {
      Block block{};
      block.rows = std::min(TOGETHER, rows - first);
      for (int64_t r = 0; r < block.rows; ++r) {
        uint8_t* to = q + r * depth;
        isa_.quantize(a + (first + r) * b.k, b.k, CODES_OF_ROWS, to, row_scales + r);
        for (int64_t i = b.k; i < depth; ++i) to[i] = 0;
      }
      block.q = q, block.row_scale = row_scales, block.k = depth;
      block.panel = panel, block.sums = sums, block.column_scale = scales, block.columns = b.n;
      block.zero_point = CODES_OF_ROWS.zero_point;
      block.y = y + first * b.n, block.stride = b.n;
      isa_.multiply(block);
    }
  }

  const Isa& isa_ = isa();
};

}  // namespace

void add_activation_products(std::vector<std::unique_ptr<Operator>>& all) {
  for (const char* name : {"IntegerMatMul", "IntegerMatMulStandard"}) {
    all.push_back(std::make_unique<Operator>(
        name, std::vector<int>{ort::FLOAT, ort::FLOAT}, std::vector<int>{ort::FLOAT},
        [](const Info&) { return std::make_unique<IntegerMatMul>(); },
        [](const std::vector<Dims>& in) {
          const Dims &a = in[0], &b = in[1];
          // Axes that broadcast are left open.
          if (a.lengths.size() < 2 || a.lengths.size() < b.lengths.size() || b.lengths.size() < 2) return std::vector<Dims>{};
          Dims y = a;
          const size_t more = a.lengths.size() - b.lengths.size();
          for (size_t i = 0; i + 2 < b.lengths.size(); ++i) {
            const size_t at = more + i;
            const bool same = a.lengths[at] == b.lengths[i] && a.names[at] == b.names[i];
            if (!same && b.lengths[i] != 1) return std::vector<Dims>{};
          }
          y.lengths.back() = b.lengths.back(), y.names.back() = b.names.back();
          return std::vector<Dims>{y};
        }));
  }
}

}  // namespace bct
