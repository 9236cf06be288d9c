// What products of packed codes have in common: passes/functions/both_matmul.py, nbits.py.
#pragma once

#include "isa.h"
#include "operator.h"

namespace bct {

// Rows of floats, [rows, K], and where their products go, [rows, N].
struct FloatRows {
  const float* x;
  float* y;
  int64_t rows;
};

// x times packed codes that a node has as an input.
class PackedProduct : public Kernel {
 public:
  explicit PackedProduct(const Info& info);

 protected:
  void set_codes(Packed& weight, const Tensor& codes) const;
  static void set_zeros(Packed& weight, const Tensor& zeros);
  FloatRows prepare(const Call& call) const;
  // Codes are read as they lie, for a few rows at a time, which are int8 in blocks.
  void few(const Call& call, const Packed& weight, const FloatRows& rows) const;

  const Isa& isa_ = isa();
  Packed geometry_{};
};

// The axes of x, the last of them that of the codes: shape inference has no attributes.
std::vector<Dims> rows_of(const Dims& x, const Dims& codes);

}  // namespace bct
