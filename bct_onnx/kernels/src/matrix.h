// Rows of codes times one matrix, shared out to the session's threads.
#pragma once

#include "rows.h"
#include "weights.h"

namespace bct {

struct Rows {
  const uint8_t* q;
  const float* scale;
  const float* residual;  // null where there is none
  float* y;               // null where floats do not leave
  int64_t rows;
};

// One matrix of a product.
struct Matrix {
  Weight weight;
  const Panels* panels;  // null where the weight is decoded at every call
  const float* column_scale;
  int32_t zero_point;
  const float* bias;  // null where there is none
  Curve curve;
  float alpha;
};

// Of weights [k, n] that lie side by side.
Panels unpack_all(const Isa& isa, const Call& call, const std::vector<Weight>& parts);

void multiply(const Isa& isa, const Call& call, const Matrix& matrix, const Rows& rows);

// The same, results becoming codes while they are in the cache: they are nowhere as floats.
void multiply(const Isa& isa, const Call& call, const Matrix& matrix, const Rows& rows, const RowEnding& ending);

}  // namespace bct
