// QuantizeRows, alone and behind a normalization: passes/functions/quantize_rows.py and normalize_rows.py.

#include "rows.h"

namespace bct {
namespace {

class Quantizer : public Kernel {
 public:
  Quantizer(const Info& info, const RowKind& kind) : writer_(info, kind, "zero_point") {}

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const RowEnding ending = writer_.begin(call, isa_, x.shape, 1);
    if (x.size() != 0) ending.finish_all(call, x.as<float>(), x.size() / ending.k);
  }

 private:
  const Isa& isa_ = isa();
  RowWriter writer_;
};

void add(std::vector<std::unique_ptr<Operator>>& all, const RowKind& kind) {
  std::vector<int> inputs = kind.inputs();
  inputs.insert(inputs.begin(), ort::FLOAT);
  all.push_back(std::make_unique<Operator>(
      kind.name(), inputs, kind.outputs(), [kind](const Info& info) { return std::make_unique<Quantizer>(info, kind); },
      [kind](const std::vector<Dims>& in) { return kind.shapes(in[0]); }));
}

}  // namespace

void add_quantizers(std::vector<std::unique_ptr<Operator>>& all) {
  for (const char* ending : {"", "Like", "ByDivision"}) {
    add(all, {false, false, false, ending});
    add(all, {false, false, true, ending});
    add(all, {true, false, false, ending});
    add(all, {true, true, false, ending});
  }
}

}  // namespace bct
