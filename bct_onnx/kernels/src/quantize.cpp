// QuantizeRows: passes/functions/quantize_rows.py.

#include <algorithm>
#include <string>

#include "isa.h"
#include "operator.h"

namespace bct {
namespace {

// Elements that are worth a task of their own.
constexpr int64_t TASK = 1 << 14;

// Where nothing is said of a floor: the constants of the function's body.
constexpr RowCodes SYMMETRIC{false, 128, static_cast<float>(1e-30 * 127), static_cast<float>(1.0 / 127)};

class Quantizer : public Kernel {
 public:
  Quantizer(const Info& info, bool above, bool zeros) : codes_(SYMMETRIC), zeros_(zeros) {
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
    auto* q = call.output<uint8_t>(0, x.shape);
    auto* scale = call.output<float>(1, ones);
    if (zeros_) {
      auto* zeros = call.output<uint8_t>(2, ones);
      std::fill_n(zeros, rows, static_cast<uint8_t>(codes_.zero_point));
    }
    if (rows == 0) return;
    const int64_t part = std::max<int64_t>(1, TASK / k);
    call.parallel(static_cast<size_t>((rows + part - 1) / part), [&](size_t task) {
      const int64_t start = static_cast<int64_t>(task) * part, stop = std::min(rows, start + part);
      for (int64_t row = start; row < stop; ++row) {
        isa_.quantize(x.as<float>() + row * k, k, codes_, q + row * k, scale + row);
      }
    });
  }

 private:
  const Isa& isa_ = isa();
  RowCodes codes_;
  bool zeros_;
};

}  // namespace

void add_quantizers(std::vector<std::unique_ptr<Operator>>& all) {
  for (const bool above : {false, true}) {
    for (const char* ending : {"", "Like", "ByDivision"}) {
      const bool zeros = ending[0] == '\0', like = ending[0] == 'L';
      std::vector<int> inputs{ort::FLOAT}, outputs{ort::UINT8, ort::FLOAT};
      if (like) inputs.push_back(ort::UINT8);
      if (zeros) outputs.push_back(ort::UINT8);
      all.push_back(std::make_unique<Operator>(
          std::string(above ? "QuantizeRowsAbove" : "QuantizeRows") + ending, inputs, outputs,
          [above, zeros](const Info& info) { return std::make_unique<Quantizer>(info, above, zeros); },
          [zeros](const std::vector<Dims>& in) {
            Dims ones = in[0];
            if (ones.lengths.empty()) return std::vector<Dims>{};
            ones.lengths.back() = 1, ones.names.back().clear();
            return zeros ? std::vector<Dims>{in[0], ones, ones} : std::vector<Dims>{in[0], ones};
          }));
    }
  }
}

}  // namespace bct
