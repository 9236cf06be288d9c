// What follows a product in its call: passes/functions/endings.py.
#pragma once

#include <string>
#include <vector>

#include "isa.h"
#include "operator.h"
#include "rows.h"

namespace bct {

struct Endings {
  std::string name;
  bool bias;
  Curve curve;
  bool alpha;  // an attribute of that name says how steep the curve is
  bool residual;
  bool leaves;   // floats do, or what `rows` makes of them
  RowKind rows;

  // Inputs behind those of the product.
  size_t inputs() const { return static_cast<size_t>(bias) + static_cast<size_t>(residual); }
};

// All of them, none at all first.
std::vector<Endings> all_endings();

// The dimensions of the sum of two tensors; those of which nothing is known are unnamed.
Dims sum_of(const Dims& left, const Dims& right);

// y = left + right, both of y's rank and last axis; axes of one broadcast. Returns the shape of y; Error where they do
// not fit.
Shape broadcast(const Shape& left, const Shape& right);
void add_rows(const Call& call, const float* left, const Shape& left_shape, const float* right,
              const Shape& right_shape, float* y, const Shape& y_shape);

}  // namespace bct
