// Rows of floats that leave a call as codes and their scales, normalized before or not.
#pragma once

#include <string>
#include <vector>

#include "isa.h"
#include "operator.h"

namespace bct {

// Which function makes the codes: passes/functions/quantize_rows.py and normalize_rows.py.
struct RowKind {
  bool normalizes;
  bool even;  // by another gain and bias, too, whose rows become codes
  bool above;
  std::string ending;  // "", "Like", "ByDivision"

  std::string name() const;
  // Whether zero points leave, too.
  bool zeros() const { return ending.empty(); }
  // Types of the inputs behind the floats, and of the outputs.
  std::vector<int> inputs() const;
  std::vector<int> outputs() const;
  // Of outputs, for floats of a shape.
  std::vector<Dims> shapes(const Dims& x) const;
};

// Where rows go in one call.
struct RowEnding {
  const Isa& isa;
  RowCodes codes;
  int64_t k;
  Normalization by;  // no gain where rows are not normalized
  float* y;          // normalized, [rows, k]
  uint8_t* q;
  float* scale;

  void finish(const float* x, int64_t row) const {
    if (by.gain != nullptr) {
      const bool twice = by.even_gain != nullptr;
      float* even = twice ? static_cast<float*>(scratch(EVEN, static_cast<size_t>(k) * sizeof(float))) : nullptr;
      isa.normalize(x, by, y + row * k, even);
      x = twice ? even : y + row * k;
    }
    isa.quantize(x, k, codes, q + row * k, scale + row);
  }

  // Rows x [rows, k], some a task.
  void finish_all(const Call& call, const float* x, int64_t rows) const;
};

class RowWriter {
 public:
  // Reads attributes of the node; Error where they are none.
  RowWriter(const Info& info, const RowKind& kind, const char* zero_point);
  // Makes the outputs for floats of a shape; gain and bias are inputs from `index` on.
  RowEnding begin(const Call& call, const Isa& isa, const Shape& shape, size_t index) const;

 private:
  RowKind kind_;
  RowCodes codes_ = SYMMETRIC;
  float epsilon_ = 0;
};

}  // namespace bct
