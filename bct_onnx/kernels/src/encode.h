// What encoding a weight is made of, as passes/formats/compiled.py calls it: records of sizes and arrays, C-contiguous.
// Rows of blocks are a weight's, [blocks, rows, n], and all but the trellis want at least 16 columns.
#pragma once

#include <cstdint>

namespace bct {

// Codes in a trellis: `_codes` of passes/formats/encode_trellis.py.
struct TrellisWeight {
  int64_t rows;           // of all blocks, a multiple of 8
  int64_t n;
  int64_t k;              // rows of the weight, without padding
  int64_t block;          // rows that share a shift
  int64_t numbers;        // places that numbers are looked up at, the middle one for zero
  const float* values;    // [rows, n]
  const float* per_unit;  // places a unit of the values, [n]
  const uint8_t* shifts;  // 0 or 1, [rows / block, n]
  const uint16_t* costs;  // [2 * numbers + 1, 4]: numbers in blocks without a shift, with one, and none
  const int8_t* coded;    // code and what it stands for, [numbers, 4, 2]
  int8_t* codes;          // [rows, n]
  int8_t* stand_for;      // [rows, n]
};

// Scales and shifts for a trellis: `_scales` of passes/formats/encode_trellis.py.
struct Expected {
  int64_t blocks, rows, n;
  int64_t candidates;
  int64_t octave;         // candidates between a scale and its double, or 0 where no block is shifted
  const float* values;    // [blocks, rows, n]
  const float* furthest;  // of numbers that are not clipped, [octave + candidates, n]
  const float* constant;  // expected of a block beside what is clipped, the same
  int32_t* best;          // the candidate, [n]
  uint8_t* shifts;        // [blocks, n]
};

// Shifts and errors of codes that stand for themselves: `_best_exponents` of passes/formats/encode.py.
struct Tried {
  int64_t blocks, rows, n;
  int64_t candidates;
  int64_t shifted;      // whether blocks may be
  const float* values;  // [blocks, rows, n]
  const float* scales;  // [candidates, n]
  uint8_t* shifts;      // [candidates, blocks, n]
  float* errors;        // squared, of all blocks, [candidates, n]
  float low, high;      // codes
  float tiny;           // a block's largest value is at least that
};

// Codes that stand for themselves: `_round` of passes/formats/encode.py.
struct Rounded {
  int64_t blocks, rows, n;
  const float* values;    // [blocks, rows, n]
  const float* per_unit;  // steps of a code, [blocks, n]
  float* codes;           // [blocks, rows, n]
  float* errors;          // squared, in steps of a code, [blocks, n]
  float low, high;
};

struct Encoding {
  void (*encode_trellis)(const TrellisWeight&);
  void (*expect_scales)(const Expected&);
  void (*try_scales)(const Tried&);
  void (*round_codes)(const Rounded&);
};

}  // namespace bct
