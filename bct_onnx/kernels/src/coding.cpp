// CodeBlocks, CodedReluSquared, BlockLayerNormalization and its kin: passes/functions/quantize_blocks.py,
// passes/relu_squared.py, passes/layer_normalization/function.py.

#include <algorithm>
#include <string>

#include "isa.h"
#include "operator.h"

namespace bct {
namespace {

// Elements that are worth a task of their own.
constexpr int64_t TASK = 1 << 14;
// The ONNX types of codes, and the widest row whose squares add up in 64 bits.
constexpr int64_t INT8 = 3, FLOAT8E4M3 = 17, INT4 = 22, WIDEST = 1 << 16;

template <typename Body>
void over_rows(const Call& call, int64_t rows, int64_t k, const Body& body) {
  if (rows * k == 0) return;
  const int64_t part = std::max<int64_t>(1, TASK / k);
  call.parallel(static_cast<size_t>((rows + part - 1) / part), [&](size_t task) {
    const int64_t start = static_cast<int64_t>(task) * part, stop = std::min(rows, start + part);
    for (int64_t row = start; row < stop; ++row) body(row);
  });
}

int64_t block_of(const Info& info) {
  const int64_t block = info.whole("block_size");
  require(block > 0 && block <= WIDEST && info.wholes("block") == Shape{block},
          "block and block_size are not the same length up to 65536");
  return block;
}

class CodeBlocks : public Kernel {
 public:
  CodeBlocks(const Info& info, bool squared) : codes_{block_of(info), info.real("ulps"), 0, 255, false, squared} {
    if (squared) return;
    const int64_t type = info.whole("output_dtype");
    require(type == INT8 || type == INT4 || type == FLOAT8E4M3, "output_dtype is neither int8, int4 nor float8e4m3");
    codes_.e4m3 = type == FLOAT8E4M3;
    codes_.high = type == INT8 ? 127 : type == INT4 ? 7 : 448;
    codes_.low = type == FLOAT8E4M3 ? -448 : -codes_.high - 1;
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const int64_t size = x.size();
    const int64_t k = x.shape.empty() ? 1 : x.shape.back(), block = codes_.block;
    auto* y = call.output<float>(0, x.shape);
    if (size == 0) return;
    // Rows of whole blocks may be cut anywhere between blocks.
    const int64_t length = k % block == 0 && block <= TASK ? TASK / block * block : k;
    over_rows(call, (size + length - 1) / length, length, [&](int64_t part) {
      const int64_t start = part * length;
      isa_.coding.code_blocks(codes_, x.as<float>() + start, std::min(length, size - start), y + start);
    });
  }

 private:
  const Isa& isa_ = isa();
  BlockCodes codes_;
};

class BlockNormalization : public Kernel {
 public:
  BlockNormalization(const Info& info, bool centered, bool bias)
      : bias_(bias),
        rows_{info.whole("width"), block_of(info), info.real("ulps"), info.real("epsilon"), info.real("part"),
              centered,            nullptr,        nullptr} {
    require(rows_.width > 0 && rows_.width <= WIDEST, "width is no length up to 65536");
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const int64_t size = x.size(), k = rows_.width;
    require(!x.shape.empty() && (x.shape.back() == k || size == 0), "x is not as wide as the attribute says");
    CodedRows rows = rows_;
    const Tensor gain = call.input(1);
    require(gain.size() == k, "scale is not one number a column");
    rows.gain = gain.as<float>();
    Tensor bias;
    if (bias_) {
      bias = call.input(2);
      require(bias.size() == k, "bias is not one number a column");
      rows.bias = bias.as<float>();
    }
    auto* y = call.output<float>(0, x.shape);
    over_rows(call, size / k, k,
              [&](int64_t row) { isa_.coding.normalize_codes(rows, x.as<float>() + row * k, y + row * k); });
  }

 private:
  const Isa& isa_ = isa();
  bool bias_;
  CodedRows rows_;
};

std::vector<Dims> as_first(const std::vector<Dims>& in) { return {in[0]}; }

}  // namespace

void add_codings(std::vector<std::unique_ptr<Operator>>& all) {
  const size_t first = all.size();
  const std::vector<int> one{ort::FLOAT};
  for (const char* name : {"CodeBlocks", "CodeBlocksAnyRank", "CodedReluSquared"}) {
    const bool squared = name == std::string("CodedReluSquared");
    all.push_back(std::make_unique<Operator>(
        name, one, one, [squared](const Info& info) { return std::make_unique<CodeBlocks>(info, squared); }, as_first));
  }
  for (const bool centered : {true, false}) {
    for (const bool bias : {true, false}) {
      for (const char* padded : {"", "Padded"}) {
        const std::string name = centered ? "BlockLayerNormalization" : "BlockRMSNormalization";
        all.push_back(std::make_unique<Operator>(
            name + (bias ? "" : "NoBias") + padded, std::vector<int>(bias ? 3 : 2, ort::FLOAT), one,
            [=](const Info& info) { return std::make_unique<BlockNormalization>(info, centered, bias); }, as_first));
      }
    }
  }
  for (size_t i = first; i < all.size(); ++i) all[i]->in_place = true;
}

}  // namespace bct
