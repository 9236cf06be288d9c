// BlockSoftmax, TableGelu and its kin: passes/softmax/function.py, passes/gelu/function.py.

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "curve_tables.h"
#include "isa.h"
#include "operator.h"

namespace bct {
namespace {

// Elements that are worth a task of their own.
constexpr int64_t TASK = 1 << 14;

// exp((i - 255) / 16) in units of 2^-24; the first is zero.
const std::array<float, 256>& powers() {
  static const std::array<float, 256> found = [] {
    std::array<float, 256> made{};
    for (int i = 1; i < 256; ++i) made[static_cast<size_t>(i)] = static_cast<float>(std::nearbyint(0x1p24 * std::exp((i - 255) / 16.0)));
    return made;
  }();
  return found;
}

class Softmax : public Kernel {
 public:
  explicit Softmax(const Info& info) {
    const Shape axes = info.wholes("axes");
    require(axes.size() == 1, "axes are not one");
    axis_ = axes[0];
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const auto rank = static_cast<int64_t>(x.shape.size());
    const int64_t axis = axis_ < 0 ? axis_ + rank : axis_;
    require(axis >= 0 && axis < rank, "x has no such axis");
    const int64_t k = x.shape[static_cast<size_t>(axis)], size = x.size();
    const int64_t inner = elements({x.shape.begin() + axis + 1, x.shape.end()});
    auto* y = call.output<float>(0, x.shape);
    if (size == 0) return;
    const int64_t rows = size / k, part = std::max<int64_t>(1, TASK / k);
    call.parallel(static_cast<size_t>((rows + part - 1) / part), [&](size_t task) {
      const int64_t start = static_cast<int64_t>(task) * part, stop = std::min(rows, start + part);
      for (int64_t row = start; row < stop; ++row) {
        const int64_t at = row / inner * k * inner + row % inner;
        answer(x.as<float>() + at, k, inner, y + at);
      }
    });
  }

 private:
  // Numbers of a row lie `apart`.
  void answer(const float* x, int64_t k, int64_t apart, float* y) const {
    if (apart == 1) return isa_.coding.share(powers().data(), x, k, y);
    auto* own = static_cast<float*>(scratch(SCORES, static_cast<size_t>(k) * sizeof(float)));
    for (int64_t i = 0; i < k; ++i) own[i] = x[i * apart];
    isa_.coding.share(powers().data(), own, k, own);
    for (int64_t i = 0; i < k; ++i) y[i * apart] = own[i];
  }

  const Isa& isa_ = isa();
  int64_t axis_;
};

class TableCurve : public Kernel {
 public:
  explicit TableCurve(const CurveCodes& from) : step_(from.step) {
    for (size_t i = 0; i < 256; ++i) distances_[i] = static_cast<float>(from.codes[i]) * from.unit;
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const int64_t size = x.size();
    auto* y = call.output<float>(0, x.shape);
    if (size == 0) return;
    call.parallel(static_cast<size_t>((size + TASK - 1) / TASK), [&](size_t task) {
      const int64_t start = static_cast<int64_t>(task) * TASK;
      isa_.coding.curve({step_, distances_.data()}, x.as<float>() + start, std::min(TASK, size - start), y + start);
    });
  }

 private:
  const Isa& isa_ = isa();
  float step_;
  std::array<float, 256> distances_{};
};

std::vector<Dims> as_first(const std::vector<Dims>& in) { return {in[0]}; }

}  // namespace

void add_tables(std::vector<std::unique_ptr<Operator>>& all) {
  const size_t first = all.size();
  const std::vector<int> one{ort::FLOAT};
  all.push_back(std::make_unique<Operator>(
      "BlockSoftmax", one, one, [](const Info& info) { return std::make_unique<Softmax>(info); }, as_first));
  for (const CurveCodes& table : CURVE_CODES) {
    all.push_back(std::make_unique<Operator>(
        table.name, one, one, [&table](const Info&) { return std::make_unique<TableCurve>(table); }, as_first));
  }
  for (size_t i = first; i < all.size(); ++i) all[i]->in_place = true;
}

}  // namespace bct
