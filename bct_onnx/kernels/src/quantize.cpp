// QuantizeRows, alone and behind a normalization: passes/functions/quantize_rows.py and normalize_rows.py.

#include <algorithm>
#include <string>

#include "isa.h"
#include "operator.h"

namespace bct {
namespace {

// Elements that are worth a task of their own.
constexpr int64_t TASK = 1 << 14;

class Quantizer : public Kernel {
 public:
  Quantizer(const Info& info, bool above, bool normalizes, bool zeros)
      : codes_(SYMMETRIC), normalizes_(normalizes), zeros_(zeros) {
    if (normalizes) epsilon_ = info.real("epsilon");
    if (!above) return;
    const int64_t zero_point = info.whole("zero_point");
    require(zero_point >= 0 && zero_point <= 255, "zero_point is no uint8");
    codes_ = {true, static_cast<int32_t>(zero_point), info.real("least_peak"), info.real("step")};
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    require(!x.shape.empty(), "x has no axis");
    const int64_t k = x.shape.back();
    Shape ones = x.shape;
    ones.back() = 1;
    const int64_t rows = elements(ones);
    require(k > 0 || rows == 0, "rows are empty");
    const float *gain = nullptr, *bias = nullptr;
    if (normalizes_) gain = parameter(call, 1, k), bias = parameter(call, 2, k);
    auto* y = normalizes_ ? call.output<float>(0, x.shape) : nullptr;
    auto* q = call.output<uint8_t>(normalizes_, x.shape);
    auto* scale = call.output<float>(normalizes_ + 1, ones);
    if (zeros_) {
      auto* zeros = call.output<uint8_t>(normalizes_ + 2, ones);
      std::fill_n(zeros, rows, static_cast<uint8_t>(codes_.zero_point));
    }
    if (rows == 0) return;
    const int64_t part = std::max<int64_t>(1, TASK / k);
    call.parallel(static_cast<size_t>((rows + part - 1) / part), [&](size_t task) {
      const int64_t start = static_cast<int64_t>(task) * part, stop = std::min(rows, start + part);
      for (int64_t row = start; row < stop; ++row) {
        const float* from = x.as<float>() + row * k;
        if (normalizes_) {
          isa_.normalize(from, gain, bias, k, epsilon_, y + row * k);
          from = y + row * k;
        }
        isa_.quantize(from, k, codes_, q + row * k, scale + row);
      }
    });
  }

 private:
  static const float* parameter(const Call& call, size_t index, int64_t k) {
    const Tensor found = call.input(index);
    require(found.shape == Shape{k}, "gain or bias is not one number a column");
    return found.as<float>();
  }

  const Isa& isa_ = isa();
  RowCodes codes_;
  bool normalizes_, zeros_;
  float epsilon_ = 0;
};

void add(std::vector<std::unique_ptr<Operator>>& all, bool normalizes, bool above, const std::string& ending) {
  const bool zeros = ending.empty();
  std::vector<int> inputs{ort::FLOAT}, outputs{ort::UINT8, ort::FLOAT};
  if (normalizes) inputs.insert(inputs.end(), 2, ort::FLOAT), outputs.insert(outputs.begin(), ort::FLOAT);
  if (ending == "Like") inputs.push_back(ort::UINT8);
  if (zeros) outputs.push_back(ort::UINT8);
  const std::string name = above ? "QuantizeRowsAbove" : normalizes ? "LayerNormalizationQuantizeRows" : "QuantizeRows";
  all.push_back(std::make_unique<Operator>(
      name + ending, inputs, outputs,
      [=](const Info& info) { return std::make_unique<Quantizer>(info, above, normalizes, zeros); },
      [=](const std::vector<Dims>& in) {
        Dims ones = in[0];
        if (ones.lengths.empty()) return std::vector<Dims>{};
        ones.lengths.back() = 1, ones.names.back().clear();
        std::vector<Dims> found{in[0], ones};
        if (normalizes) found.insert(found.begin(), in[0]);
        if (zeros) found.push_back(ones);
        return found;
      }));
}

}  // namespace

void add_quantizers(std::vector<std::unique_ptr<Operator>>& all) {
  for (const char* ending : {"", "Like", "ByDivision"}) {
    add(all, false, false, ending);
    add(all, false, true, ending);
    add(all, true, false, ending);
  }
}

}  // namespace bct
