// NBitsMatMul, NBitsMatMulOffset, NBitsMatMulScales: passes/functions/nbits.py. Where scales are powers of two apart, as
// shifts of blocks are, and there are tiles for it, products are in bfloat16, that holds codes and shifts exactly and
// rounds x as finely as int8 in blocks does. Else, and for steps of one row, codes are read as they lie, and x is int8
// in blocks.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "packed.h"
#include "weights.h"

namespace bct {
namespace {

// Elements of x that are worth a task of their own, where they are rounded.
constexpr int64_t TASK = 1 << 14;
// Panels of a task: what stays in a core's own cache, and few enough for all threads to have some.
constexpr int64_t MOST_PANEL_BYTES = 1 << 19, LEAST_TASKS = 4;
// Where there are few panels, rows are shared out, too.
constexpr int64_t SHARED_ROWS = 256;

// A number without sign and octave.
int32_t digits(float x) {
  int32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffff;
}

// Splits scales [n, blocks] to that of the column and powers of two below it; false where they are none.
bool split_scales(const Packed& p, std::vector<uint8_t>& below, std::vector<float>& column_scale) {
  below.resize(static_cast<size_t>(p.n * p.blocks)), column_scale.resize(static_cast<size_t>(p.n));
  for (int64_t column = 0; column < p.n; ++column) {
    const float* scale = p.block_scale + column * p.blocks;
    const float largest = *std::max_element(scale, scale + p.blocks);
    column_scale[static_cast<size_t>(column)] = largest;
    if (!std::isnormal(largest) || largest < 0) return false;
    for (int64_t b = 0; b < p.blocks; ++b) {
      if (!std::isnormal(scale[b]) || scale[b] < 0 || digits(scale[b]) != digits(largest)) return false;
      const int apart = std::ilogb(largest) - std::ilogb(scale[b]);
      if (apart > MOST_BELOW) return false;
      below[static_cast<size_t>(column * p.blocks + b)] = static_cast<uint8_t>(apart);
    }
  }
  return true;
}

// A weight as tiles of bfloat16 take it.
class BfloatWeight {
 public:
  // Whether the weight is made for it; its codes stay the caller's.
  bool make(const Isa& isa, const Call& call, const Packed& weight) {
    std::vector<uint8_t> below;
    if (!split_scales(weight, below, column_scale_)) return false;
    depth_ = (weight.k + BFLOAT_DEPTH - 1) / BFLOAT_DEPTH * BFLOAT_DEPTH;
    const int64_t panels = panels_of(weight), size = elements({panels, depth_ * BFLOAT_PANEL * 2});
    panels_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>(size))));
    require(panels_ != nullptr, "no memory for the weight");
    call.parallel(static_cast<size_t>(panels), [&](size_t panel) {
      isa.bfloats.unpack({weight, below.data()}, static_cast<int64_t>(panel) * BFLOAT_PANEL,
                         at(static_cast<int64_t>(panel)));
    });
    return true;
  }

  void multiply(const Isa& isa, const Call& call, const Packed& weight, const FloatRows& rows) const {
    const int64_t k = weight.k, n = weight.n, part = std::max<int64_t>(1, TASK / k);
    const int64_t whole = (rows.rows + BFLOAT_ROWS - 1) / BFLOAT_ROWS * BFLOAT_ROWS;
    auto* x = static_cast<uint16_t*>(scratch(CODES, static_cast<size_t>(elements({whole, depth_})) * sizeof(uint16_t)));
    std::vector<float> row_scale(static_cast<size_t>(rows.rows));
    call.parallel(static_cast<size_t>((rows.rows + part - 1) / part), [&](size_t task) {
      const int64_t start = static_cast<int64_t>(task) * part;
      for (int64_t row = start; row < std::min(rows.rows, start + part); ++row) {
        isa.bfloats.round_row(rows.x + row * k, k, x + row * depth_, &row_scale[static_cast<size_t>(row)]);
      }
    });
    const int64_t panels = panels_of(weight), bytes = depth_ * BFLOAT_PANEL * 2;
    const int64_t wide = std::max<int64_t>(1, std::min(MOST_PANEL_BYTES / bytes, panels / LEAST_TASKS));
    const int64_t groups = (panels + wide - 1) / wide;
    const int64_t share = groups < LEAST_TASKS ? std::min(rows.rows, SHARED_ROWS) : rows.rows;
    const int64_t shares = (rows.rows + share - 1) / share;
    call.parallel(static_cast<size_t>(groups * shares), [&](size_t task) {
      const int64_t panel = static_cast<int64_t>(task) / shares * wide, first = panel * BFLOAT_PANEL;
      const int64_t row = static_cast<int64_t>(task) % shares * share;
      BfloatBlock block{};
      block.x = x + row * depth_, block.row_scale = row_scale.data() + row;
      block.rows = std::min(share, rows.rows - row), block.k = k;
      block.panels = at(panel), block.column_scale = column_scale_.data() + first;
      block.columns = std::min(wide * BFLOAT_PANEL, n - first);
      block.y = rows.y + row * n + first, block.stride = n;
      isa.bfloats.multiply(block);
    });
  }

 private:
  static int64_t panels_of(const Packed& weight) { return (weight.n + BFLOAT_PANEL - 1) / BFLOAT_PANEL; }

  uint16_t* at(int64_t panel) const {
    return reinterpret_cast<uint16_t*>(panels_.get()) + panel * depth_ * BFLOAT_PANEL;
  }

  int64_t depth_ = 0;
  std::unique_ptr<uint8_t, Free> panels_;
  std::vector<float> column_scale_;
};

class NBitsMatMul : public PackedProduct {
 public:
  NBitsMatMul(const Info& info, bool exponents, bool zeros)
      : PackedProduct(info), exponents_(exponents), zeros_(zeros) {
    require(!zeros_ || geometry_.bits == 4, "bits with zero points are not 4");
    Tensor codes, first, second;
    constant_ = info.constant(1, &codes) && info.constant(2, &first) && (!exponents_ || info.constant(3, &second));
    if (!exponents_) return;
    step_ = info.real("step"), tensor_scale_ = info.real("tensor_scale");
  }

  void compute(const Call& call) override {
    Packed weight = geometry_;
    set_codes(weight, call.input(1));
    const FloatRows rows = prepare(call);
    std::vector<float> own;
    if (!exponents_) {
      const Tensor scale = call.input(2);
      require(scale.size() == weight.n * weight.blocks, "scale is not one number a block");
      weight.block_scale = scale.as<float>();
    } else if (constant_) {
      // Made at the first call, so that making a session is no work.
      std::call_once(made_, [&] { scales_ = block_scales(call); });
      weight.block_scale = scales_.data();
    } else {
      own = block_scales(call), weight.block_scale = own.data();
    }
    if (zeros_) set_zeros(weight, call.input(3));
    if (rows.rows == 0) return;
    if (constant_ && !zeros_ && isa_.bfloats.multiply != nullptr && !is_step(call.input(0).shape)) {
      std::call_once(tried_, [&] { is_bfloat_ = bfloats_.make(isa_, call, weight); });
      if (is_bfloat_) return bfloats_.multiply(isa_, call, weight, rows);
    }
    few(call, weight, rows);
  }

 private:
  // Whether x is a row of each of a batch: the number of rows decides, and no other batch.
  static bool is_step(const Shape& x) { return x.size() > 2 && x[x.size() - 2] == 1; }

  // 2^(exponents * step) * column scale, [n, blocks].
  std::vector<float> block_scales(const Call& call) const {
    const Packed& p = geometry_;
    const Tensor first = call.input(2);
    require(first.type == ort::UINT4 || first.type == ort::UINT8, "exponents are not whole numbers");
    require(first.size() == p.n * p.blocks, "exponents are not one number a block");
    const std::vector<float> columns = floats(call.input(3), tensor_scale_);
    require(static_cast<int64_t>(columns.size()) == p.n, "column_scale is not one number a column");
    float powers[256];
    for (int i = 0; i < 256; ++i) powers[i] = static_cast<float>(std::exp2(static_cast<float>(i) * step_));
    std::vector<float> found(static_cast<size_t>(first.size()));
    const auto* exponents = first.as<uint8_t>();
    for (int64_t i = 0; i < first.size(); ++i) {
      const int exponent = first.type == ort::UINT4 ? exponents[i / 2] >> (i % 2 * 4) & 15 : exponents[i];
      found[static_cast<size_t>(i)] = powers[exponent] * columns[static_cast<size_t>(i / p.blocks)];
    }
    return found;
  }

  bool exponents_, zeros_;
  float step_ = 0, tensor_scale_ = 1;
  bool constant_ = false, is_bfloat_ = false;
  std::once_flag made_, tried_;
  std::vector<float> scales_;
  BfloatWeight bfloats_;
};

}  // namespace

void add_nbits(std::vector<std::unique_ptr<Operator>>& all) {
  const auto add = [&](const char* name, bool exponents, bool zeros) {
    std::vector<int> inputs{ort::FLOAT, ort::UINT8};
    if (exponents) inputs.push_back(ort::ANY);
    inputs.push_back(exponents ? ort::ANY : ort::FLOAT);
    if (zeros) inputs.push_back(ort::UINT8);
    all.push_back(std::make_unique<Operator>(
        name, inputs, std::vector<int>{ort::FLOAT},
        [=](const Info& info) { return std::make_unique<NBitsMatMul>(info, exponents, zeros); },
        [](const std::vector<Dims>& in) { return rows_of(in[0], in[1]); }));
  };
  add("NBitsMatMul", false, false), add("NBitsMatMulOffset", false, true), add("NBitsMatMulScales", true, false);
}

}  // namespace bct
