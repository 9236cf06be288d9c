// What runs between products where values are codes in blocks: a row at a time.
#pragma once

#include <cstdint>

namespace bct {

// Blocks of numbers with a shift each: passes/functions/quantize_blocks.py.
struct BlockCodes {
  int64_t block;
  float ulps;       // what a block's largest is multiplied with: the place of its last digit is the shift
  float low, high;  // codes
  bool e4m3;        // codes are floats of 3 bits behind the point, else whole numbers
  bool squared;     // max(x, 0) is coded, and squared: passes/relu_squared.py
};

// Rows normalized by statistics of their codes: passes/layer_normalization/function.py.
struct CodedRows {
  int64_t width;
  int64_t block;
  float ulps;
  float epsilon;
  float part;     // one of `width`
  bool centered;  // the mean is subtracted
  const float* gain;
  const float* bias;  // null where there is none
};

// A function's distance from max(x, 0): passes/gelu/function.py.
struct CurveTable {
  float step;
  const float* distances;  // [256]
};

struct Coding {
  // x [k] as codes and back
  void (*code_blocks)(const BlockCodes& codes, const float* x, int64_t k, float* y);
  void (*normalize_codes)(const CodedRows& rows, const float* x, float* y);
  // Shares of x [k] by 256 powers, in steps of a sixteenth: passes/softmax/function.py.
  void (*share)(const float* powers, const float* x, int64_t k, float* y);
  void (*curve)(const CurveTable& table, const float* x, int64_t count, float* y);
};

}  // namespace bct
