#include "endings.h"

namespace bct {
namespace {

// The place of a row in a tensor whose axes of one broadcast to those of `shape`; `row` counts those of `shape`.
int64_t row_in(const Shape& own, const Shape& shape, int64_t row) {
  int64_t found = 0, apart = 1;
  for (size_t axis = shape.size() - 1; axis-- > 0;) {
    if (own[axis] != 1) found += row % shape[axis] * apart;
    row /= shape[axis], apart *= own[axis];
  }
  return found;
}

}  // namespace

std::vector<Endings> all_endings() {
  std::vector<Endings> found;
  const RowKind none{};
  for (const bool bias : {false, true}) {
    const std::string name = bias ? "Bias" : "";
    found.push_back({name, bias, NO_CURVE, false, false, true, none});
    found.push_back({name + "Relu", bias, RELU, false, false, true, none});
    found.push_back({name + "Gelu", bias, GELU, false, false, true, none});
    found.push_back({name + "GeluTanh", bias, GELU_TANH, false, false, true, none});
    found.push_back({name + "Silu", bias, GATED, false, false, true, none});
    found.push_back({name + "QuickGelu", bias, GATED, true, false, true, none});
    found.push_back({name + "Residual", bias, NO_CURVE, false, true, true, none});
  }
  const std::vector<Endings> plain = found;
  for (const Endings& each : plain) {
    if (each.curve == NO_CURVE && !each.residual) continue;
    for (const char* ending : {"", "Like"}) {
      for (const bool even : {false, true}) {
        if (even && !each.residual) continue;
        Endings both = each;
        both.leaves = false, both.rows = {each.residual, even, !each.residual, ending};
        both.name += both.rows.name();
        found.push_back(both);
      }
    }
  }
  return found;
}

Dims sum_of(const Dims& left, const Dims& right) {
  if (left.lengths.empty() || left.lengths.size() != right.lengths.size()) return {};
  Dims found = left;
  for (size_t i = 0; i < found.lengths.size(); ++i) {
    const bool same = left.lengths[i] == right.lengths[i] && left.names[i] == right.names[i];
    if (same || right.lengths[i] == 1 || left.lengths[i] > 1) continue;
    found.lengths[i] = right.lengths[i], found.names[i] = right.names[i];
    if (left.lengths[i] != 1 && right.lengths[i] < 0) found.names[i].clear();
  }
  return found;
}

Shape broadcast(const Shape& left, const Shape& right) {
  require(left.size() == right.size() && !left.empty() && left.back() == right.back(),
          "the residual has other axes than the product");
  Shape found = left;
  for (size_t i = 0; i < found.size(); ++i) {
    require(left[i] == right[i] || left[i] == 1 || right[i] == 1, "the residual does not fit the product");
    if (left[i] == 1) found[i] = right[i];
  }
  return found;
}

void add_rows(const Call& call, const float* left, const Shape& left_shape, const float* right,
              const Shape& right_shape, float* y, const Shape& y_shape) {
  const int64_t n = y_shape.back(), rows = n == 0 ? 0 : elements(y_shape) / n;
  if (rows == 0) return;
  call.parallel(static_cast<size_t>(rows), [&](size_t task) {
    const auto row = static_cast<int64_t>(task);
    const float* one = left + row_in(left_shape, y_shape, row) * n;
    const float* other = right + row_in(right_shape, y_shape, row) * n;
    for (int64_t j = 0; j < n; ++j) y[row * n + j] = one[j] + other[j];
  });
}

}  // namespace bct
