// Weights and their scales as nodes have them, checked.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "isa.h"
#include "operator.h"

namespace bct {

// How the codes of functions with an ending lie: "4", "4Lanes", "4Trellis".
struct Packing {
  int bits;
  bool lanes;
  bool trellis;

  std::string suffix() const;
  std::vector<int> widths() const;
  // Types of the planes, highest first.
  std::vector<int> types() const;
};

// All packings below 8 bits.
const std::vector<Packing>& packings();

// A number of float16 or float32.
float one_float(const Tensor& values, int64_t place);

// float16 or float32 as float32, times a factor.
std::vector<float> floats(const Tensor& values, float factor);

// The weight [k, n] in blocks that planes and shifts hold; `codes` [blocks, block, n], `shifts` [blocks, 1, n].
// Error where these, or the lengths of the planes, do not fit each other.
Weight packed_weight(const Packing& packing, const std::vector<Tensor>& planes, const Tensor& shifts_bytes,
                     const Shape& codes, const Shape& shifts, const Shape& matrix);

// Memory aligned as panels want it.
struct Free {
  void operator()(uint8_t* data) const { std::free(data); }
};

// All panels of a weight [k, n], and the sums of their columns.
struct Panels {
  std::unique_ptr<uint8_t, Free> codes;
  std::vector<int32_t> sums;
};

inline int64_t panels_of(int64_t n) { return (n + PANEL - 1) / PANEL; }

// Panels to be filled; an error where there is no memory for them.
Panels make_panels(int64_t k, int64_t n);

}  // namespace bct
