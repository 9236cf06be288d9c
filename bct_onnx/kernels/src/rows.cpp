#include "rows.h"

#include <algorithm>

namespace bct {
namespace {

// Elements that are worth a task of their own.
constexpr int64_t TASK = 1 << 14;

const float* parameter(const Call& call, size_t index, int64_t k) {
  const Tensor found = call.input(index);
  require(found.shape == Shape{k}, "gain or bias is not one number a column");
  return found.as<float>();
}

}  // namespace

std::string RowKind::name() const {
  return std::string(normalizes ? "LayerNormalization" : "") + (even ? "Even" : "") + (above ? "QuantizeRowsAbove" : "QuantizeRows") + ending;
}

std::vector<int> RowKind::inputs() const {
  std::vector<int> found(normalizes ? (even ? 4 : 2) : 0, ort::FLOAT);
  if (ending == "Like") found.push_back(ort::UINT8);
  return found;
}

std::vector<int> RowKind::outputs() const {
  std::vector<int> found{ort::UINT8, ort::FLOAT};
  if (normalizes) found.insert(found.begin(), ort::FLOAT);
  if (zeros()) found.push_back(ort::UINT8);
  return found;
}

std::vector<Dims> RowKind::shapes(const Dims& x) const {
  if (x.lengths.empty()) return {};
  Dims ones = x;
  ones.lengths.back() = 1, ones.names.back().clear();
  std::vector<Dims> found{x, ones};
  if (normalizes) found.insert(found.begin(), x);
  if (zeros()) found.push_back(ones);
  return found;
}

void RowEnding::finish_all(const Call& call, const float* x, int64_t rows) const {
  if (rows == 0) return;
  const int64_t part = std::max<int64_t>(1, TASK / k);
  call.parallel(static_cast<size_t>((rows + part - 1) / part), [&](size_t task) {
    const int64_t start = static_cast<int64_t>(task) * part, stop = std::min(rows, start + part);
    for (int64_t row = start; row < stop; ++row) finish(x + row * k, row);
  });
}

RowWriter::RowWriter(const Info& info, const RowKind& kind, const char* zero_point) : kind_(kind) {
  if (kind.normalizes) epsilon_ = info.real("epsilon");
  if (!kind.above) return;
  const int64_t zero = info.whole(zero_point);
  require(zero >= 0 && zero <= 255, "zero_point is no uint8");
  codes_ = {true, static_cast<int32_t>(zero), info.real("least_peak"), info.real("step")};
}

RowEnding RowWriter::begin(const Call& call, const Isa& isa, const Shape& shape, size_t index) const {
  require(!shape.empty(), "x has no axis");
  const int64_t k = shape.back();
  Shape ones = shape;
  ones.back() = 1;
  const int64_t rows = elements(ones);
  require(k > 0 || rows == 0, "rows are empty");
  RowEnding found{isa, codes_, k, {nullptr, nullptr, nullptr, nullptr, k, epsilon_}, nullptr, nullptr, nullptr};
  size_t output = 0;
  if (kind_.normalizes) {
    found.by.gain = parameter(call, index, k), found.by.bias = parameter(call, index + 1, k);
    if (kind_.even) found.by.even_gain = parameter(call, index + 2, k), found.by.even_bias = parameter(call, index + 3, k);
    found.y = call.output<float>(output++, shape);
  }
  found.q = call.output<uint8_t>(output++, shape);
  found.scale = call.output<float>(output++, ones);
  if (kind_.zeros()) std::fill_n(call.output<uint8_t>(output, ones), rows, static_cast<uint8_t>(codes_.zero_point));
  return found;
}

}  // namespace bct
