// BothMatMul: passes/functions/both_matmul.py. Codes stay as they lie in the file: few rows read
// them there; for many rows they are decoded to panels, at every call where that is quick, else once, at the first call
// that has so many.

#include <algorithm>
#include <cstring>
#include <mutex>

#include "packed.h"
#include "weights.h"

namespace bct {
namespace {

// Bytes of codes that are worth a task of their own, where rows are few.
constexpr int64_t TASK_BYTES = 1 << 17;
// Elements of x that are worth a task of their own, where they are quantized.
constexpr int64_t TASK = 1 << 14;
// Rows that a panel is multiplied with at a time.
constexpr int64_t TOGETHER = 128;
// The longest sum of products of codes that 32 bits hold: LONGEST_SUM of passes/functions/quantize_rows.py.
constexpr int64_t LONGEST_SUM = INT32_MAX / (255 * 128);

void multiply_few(const Isa& isa, const Call& call, const Packed& weight, const FloatRows& product) {
  const int64_t rows = product.rows, chunks = weight.chunks(), apart = weight.blocks_apart();
  const int64_t length = chunks * 64 * (8 / weight.bits);
  auto* q = static_cast<int8_t*>(scratch(CODES, static_cast<size_t>(rows * (length + chunks * 64))));
  auto* zeros = reinterpret_cast<int32_t*>(q + rows * length);
  std::vector<float> scale(static_cast<size_t>(rows * apart)), sums(scale.size());
  for (int64_t r = 0; r < rows; ++r) {
    isa.quantize_blocks(weight, product.x + r * weight.k, q + r * length, zeros + r * chunks * 16,
                        scale.data() + r * apart, sums.data() + r * apart);
  }
  const int64_t columns = std::max<int64_t>(16, TASK_BYTES / std::max<int64_t>(1, weight.row_bytes()) / 2 * 2);
  call.parallel(static_cast<size_t>((weight.n + columns - 1) / columns), [&](size_t task) {
    const size_t bytes = static_cast<size_t>(2 * rows * apart) * sizeof(float);
    auto* own = static_cast<float*>(scratch(SCALES, bytes));
    std::memset(own, 0, bytes);
    const int64_t first = static_cast<int64_t>(task) * columns;
    isa.multiply_packed(weight, {q, zeros, scale.data(), sums.data(), rows, own, product.y}, first,
                        std::min(weight.n, first + columns));
  });
}

Panels unpack_all(const Isa& isa, const Call& call, const Packed& weight) {
  Panels found = make_panels(weight.k, weight.n);
  call.parallel(static_cast<size_t>(panels_of(weight.n)), [&](size_t i) {
    const int64_t first = static_cast<int64_t>(i) * PANEL;
    isa.unpack_packed(weight, first, found.codes.get() + first * padded(weight.k), found.sums.data() + first);
  });
  return found;
}

// Without `panels` a weight is decoded a panel at a time.
void multiply_many(const Isa& isa, const Call& call, const Packed& weight, const Panels* panels, const RowCodes& codes,
                   const FloatRows& product) {
  const int64_t rows = product.rows, k = weight.k;
  auto* q = static_cast<uint8_t*>(scratch(CODES, static_cast<size_t>(rows * k)));
  std::vector<float> scale(static_cast<size_t>(rows));
  const int64_t part = std::max<int64_t>(1, TASK / k);
  call.parallel(static_cast<size_t>((rows + part - 1) / part), [&](size_t task) {
    const int64_t start = static_cast<int64_t>(task) * part;
    for (int64_t row = start; row < std::min(rows, start + part); ++row) {
      isa.quantize(product.x + row * k, k, codes, q + row * k, &scale[static_cast<size_t>(row)]);
    }
  });
  call.parallel(static_cast<size_t>((weight.n + PANEL - 1) / PANEL), [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * PANEL;
    alignas(64) int32_t own_sums[PANEL];
    const uint8_t* panel = nullptr;
    const int32_t* sums = own_sums;
    if (panels != nullptr) {
      panel = panels->codes.get() + first * padded(k), sums = panels->sums.data() + first;
    } else {
      auto* own = static_cast<uint8_t*>(scratch(PANELS, static_cast<size_t>(padded(k) * PANEL)));
      isa.unpack_packed(weight, first, own, own_sums);
      panel = own;
    }
    for (int64_t row = 0; row < rows; row += TOGETHER) {
      Block block{};
      block.q = q + row * k, block.row_scale = scale.data() + row;
      block.rows = std::min(TOGETHER, rows - row), block.k = k;
      block.panel = panel, block.sums = sums;
      block.column_scale = weight.column_scale + first;
      block.columns = std::min(PANEL, weight.n - first);
      block.zero_point = codes.zero_point;
      block.y = product.y + row * weight.n + first, block.stride = weight.n;
      isa.multiply(block);
    }
  });
}

// What a function's codes are, and which of its inputs says what. 0: none; x, many and codes are always the first.
struct Layout {
  const char* name;
  int bits;
  size_t zeros, multiples, scale;
  bool is_signed;
};
constexpr size_t CODES_INPUT = 2;
constexpr Layout TWO{"2", 2, 0, 3, 7, false}, FOUR{"4", 4, 0, 3, 7, false}, EIGHT{"8", 8, 0, 0, 4, false};
constexpr Layout OFFSET{"Offset4", 4, 3, 4, 8, false}, TABLE{"Table", 8, 0, 0, 3, true};

class BothMatMul : public PackedProduct {
 public:
  BothMatMul(const Info& info, const Layout& layout, bool above)
      : PackedProduct(info), layout_(layout), tensor_scale_(info.real("tensor_scale")) {
    require(geometry_.bits == layout.bits, "bits are not those of the function's name");
    require(geometry_.k <= LONGEST_SUM, "K is too long for sums in integers");
    geometry_.is_signed = layout.is_signed;
    if (above) {
      const int64_t zero_point = info.whole("zero_point");
      require(zero_point >= 0 && zero_point <= 255, "zero_point is no uint8");
      codes_ = {true, static_cast<int32_t>(zero_point), info.real("least_peak"), info.real("step")};
    }
    Tensor scale, some;
    if (info.constant(layout.scale, &scale)) column_scale_ = floats(scale, tensor_scale_);
    constant_ = info.constant(CODES_INPUT, &some);
    for (const size_t input : {layout.zeros, layout.multiples}) {
      if (input != 0) constant_ = constant_ && info.constant(input, &some);
    }
  }

  void compute(const Call& call) override {
    Packed weight = geometry_;
    set_codes(weight, call.input(CODES_INPUT));
    if (layout_.multiples != 0) {
      const Tensor multiples = call.input(layout_.multiples);
      require(multiples.type == ort::UINT4 || multiples.type == ort::UINT8, "multiples are not whole numbers");
      require(multiples.size() == weight.n * weight.blocks, "multiples are not one number a block");
      weight.multiples = multiples.as<uint8_t>(), weight.nibbles = multiples.type == ort::UINT4;
    }
    if (layout_.zeros != 0) set_zeros(weight, call.input(layout_.zeros));
    std::vector<float> scales;
    if (column_scale_.empty()) scales = floats(call.input(layout_.scale), tensor_scale_);
    const std::vector<float>& found = column_scale_.empty() ? scales : column_scale_;
    require(static_cast<int64_t>(found.size()) == weight.n, "column_scale is not one number a column");
    weight.column_scale = found.data();
    const Tensor many = call.input(1);
    require(many.size() == 1, "many is not one answer");
    const FloatRows product = prepare(call);
    if (product.rows == 0) return;
    if (*many.as<bool>()) {
      const bool keep = constant_ && (weight.bits == 2 || !isa_.unpacks_quickly);
      if (keep) std::call_once(unpacked_, [&] { panels_ = unpack_all(isa_, call, weight); });
      multiply_many(isa_, call, weight, keep ? &panels_ : nullptr, codes_, product);
    } else {
      few(call, weight, product);
    }
  }

 private:
  const Layout& layout_;
  float tensor_scale_;
  RowCodes codes_ = SYMMETRIC;
  std::vector<float> column_scale_;
  bool constant_ = false;
  std::once_flag unpacked_;
  Panels panels_;
};

}  // namespace

PackedProduct::PackedProduct(const Info& info) {
  geometry_.k = info.whole("K"), geometry_.n = info.whole("N");
  geometry_.block = info.whole("block_size");
  const int64_t bits = info.whole("bits"), k = geometry_.k, block = geometry_.block;
  require(bits == 2 || bits == 4 || bits == 8, "bits are not 2, 4 or 8");
  require(block >= 16 && block <= 256 && (block & (block - 1)) == 0, "block_size is no power of two from 16 to 256");
  require(k > 0 && geometry_.n > 0, "K and N are not lengths");
  geometry_.bits = static_cast<int>(bits), geometry_.blocks = (k - 1) / block + 1;
  elements({geometry_.n, geometry_.blocks, block});
}

void PackedProduct::set_codes(Packed& weight, const Tensor& codes) const {
  require(codes.size() == weight.n * weight.row_bytes(), "codes are not [N, blocks, bytes of a block]");
  weight.codes = codes.as<uint8_t>();
}

void PackedProduct::set_zeros(Packed& weight, const Tensor& zeros) {
  require(zeros.size() == weight.n * weight.zero_bytes(), "zero_points are not half a byte a block");
  weight.zero_points = zeros.as<uint8_t>();
}

FloatRows PackedProduct::prepare(const Call& call) const {
  const Tensor x = call.input(0);
  require(!x.shape.empty() && x.shape.back() == geometry_.k, "x and the weight differ in K");
  Shape shape = x.shape;
  shape.back() = geometry_.n;
  return {x.as<float>(), call.output<float>(0, shape), x.size() / geometry_.k};
}

void PackedProduct::few(const Call& call, const Packed& weight, const FloatRows& rows) const {
  for (int64_t row = 0; row < rows.rows; row += MOST_FEW) {
    multiply_few(isa_, call, weight,
                 {rows.x + row * weight.k, rows.y + row * weight.n, std::min(MOST_FEW, rows.rows - row)});
  }
}

std::vector<Dims> rows_of(const Dims& x, const Dims& codes) {
  if (x.lengths.empty()) return {};
  Dims y = x;
  y.lengths.back() = codes.lengths.empty() ? -1 : codes.lengths[0];
  y.names.back().clear();
  return {y};
}

void add_packed(std::vector<std::unique_ptr<Operator>>& all) {
  const std::vector<int> outputs{ort::FLOAT};
  const auto add = [&](const Layout& layout, bool above, const char* ending) {
    std::vector<int> inputs{ort::FLOAT, ort::BOOL, layout.is_signed ? ort::INT8 : ort::UINT8};
    if (layout.zeros != 0) inputs.push_back(ort::UINT8);
    // Multiples, table, spread, turn, column_scale.
    if (layout.multiples != 0) inputs.insert(inputs.end(), {ort::ANY, ort::INT8, ort::INT8});
    if (!layout.is_signed) inputs.push_back(ort::FLOAT);
    inputs.push_back(ort::ANY);
    all.push_back(std::make_unique<Operator>(
        std::string("BothMatMul") + layout.name + (above ? "Above" : "") + ending, inputs, outputs,
        [&layout, above](const Info& info) { return std::make_unique<BothMatMul>(info, layout, above); },
        [](const std::vector<Dims>& in) { return rows_of(in[0], in[CODES_INPUT]); }));
  };
  for (const bool above : {false, true}) {
    for (const Layout* layout : {&TWO, &FOUR, &EIGHT}) add(*layout, above, ""), add(*layout, above, "ByDivision");
    // What asks for division, x of an unknown rank, is rare: left to the body.
    add(OFFSET, above, ""), add(TABLE, above, "");
  }
}

}  // namespace bct
