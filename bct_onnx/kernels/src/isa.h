// What is written once a kind of processor: plain functions on plain data, in a table each, chosen at load.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coding.h"
#include "encode.h"

namespace bct {

// Columns that are decoded and multiplied together.
constexpr int64_t PANEL = 64;
constexpr int64_t MOST_PANELS = 4;
// Rows of a weight that the widest products take at a time: k is padded to a multiple in panels.
constexpr int64_t DEPTH = 64;

// How a weight [k, n] lies in the file: see docs/format.md.
struct Weight {
  int bits;                  // 2 to 8
  bool trellis;              // what codes stand for depends on those before them
  bool nibbles;              // a plane of 4 bits has neighbours in a byte
  const uint8_t* planes[3];  // highest first; int8 [k, n] at 8 bits
  int widths[3];
  int count;
  const uint8_t* shifts;  // a bit a block, in lanes of shift_bytes, [k / block, n]; null where there are none
  int64_t shift_bytes;
  int64_t block;
  int64_t k;
  int64_t n;
};

// Functions of a number: max(x, 0); Gelu and its form with tanh; x * sigmoid(alpha * x).
enum Curve { NO_CURVE, RELU, GELU, GELU_TANH, GATED };

// Rows of uint8 codes q [rows, k] times columns of panels that lie one behind the other, to floats:
// y = curve(float(sum of (q - zero_point) * weight) * column_scale * row_scale + bias) + residual, rounded in this order.
struct Block {
  const uint8_t* q;
  const float* row_scale;
  int64_t rows;
  int64_t k;
  const uint8_t* panel;  // [panels, PANEL / 16, padded k / 4, 16, 4]
  const int32_t* sums;   // of the columns, [panels, PANEL]
  const float* column_scale;
  int64_t columns;  // that there are, in all panels
  int32_t zero_point;
  const float* bias;  // as many as columns; null where there is none
  Curve curve;
  float alpha;
  const float* residual;  // [rows, stride]; null where there is none
  float* y;               // [rows, stride]
  int64_t stride;
};

// A weight [k, n] of packed codes: see docs/format.md.
struct Packed {
  int bits;              // 2, 4 or 8
  const uint8_t* codes;  // around 2^(bits - 1), [n, blocks, block * bits / 8]
  int64_t block;         // 16 to 256 rows
  int64_t blocks;
  int64_t k;
  int64_t n;
  const uint8_t* multiples;    // of the column's scale, [n, blocks]; null where all are 1
  bool nibbles;                // two multiples a byte
  const float* column_scale;   // [n]
  const float* block_scale;    // [n, blocks], instead of multiples and those of columns
  const uint8_t* zero_points;  // of codes of 4 bits, two a byte, [n, zero_bytes]; null where all are 2^(bits - 1)
  bool is_signed;              // codes of a byte are around 0

  int64_t zero_bytes() const { return (blocks + 1) / 2; }
  int64_t row_bytes() const { return blocks * block * bits / 8; }
  int64_t chunks() const { return (row_bytes() + 63) / 64; }
  // Numbers of blocks lie so far apart that 16 can be read from any of them.
  int64_t blocks_apart() const { return (blocks + 31) / 16 * 16; }
};

// Up to MOST_FEW rows, quantized in blocks, for a weight of packed codes.
constexpr int64_t MOST_FEW = 4;
struct FewRows {
  const int8_t* q;       // [rows, chunks, 8 / bits, 64]
  const int32_t* zeros;  // [rows, chunks, 16]
  const float* scale;    // [rows, blocks_apart]
  const float* sums;     // of blocks, [rows, blocks_apart]
  int64_t rows;
  float* scratch;  // [2 * rows, blocks_apart]
  float* y;        // [rows, n]
};

// Codes of blocks whose scales are that of their column divided by a power of two: 2^below, 0 to MOST_BELOW.
constexpr int MOST_BELOW = 60;
struct ShiftedCodes {
  Packed codes;
  const uint8_t* below;  // [n, blocks]
};

// Rows in bfloat16 times columns of panels: y = sum * column_scale * row_scale, sums in float32.
constexpr int64_t BFLOAT_PANEL = 32, BFLOAT_ROWS = 32, BFLOAT_DEPTH = 32;
struct BfloatBlock {
  const uint16_t* x;  // [rows to a multiple of BFLOAT_ROWS, k to one of BFLOAT_DEPTH], zeros behind k
  const float* row_scale;
  int64_t rows;
  int64_t k;
  const uint16_t* panels;  // [columns / BFLOAT_PANEL, k to a multiple of BFLOAT_DEPTH, BFLOAT_PANEL]
  const float* column_scale;
  int64_t columns;
  float* y;  // [rows, stride]
  int64_t stride;
};

// Null where there are no tiles of bfloat16.
struct Bfloats {
  // One panel from column `first` on, columns beyond n zero.
  void (*unpack)(const ShiftedCodes& weight, int64_t first, uint16_t* to);
  // A row of floats [k], and the power of two that it is divided by.
  void (*round_row)(const float* x, int64_t k, uint16_t* to, float* scale);
  void (*multiply)(const BfloatBlock& block);
};

struct RowCodes {
  bool above;  // rows are never far below zero: only what is above counts for the scale
  int32_t zero_point;
  float least;
  float step;
};
// Where nothing is said of a floor: the constants of the function's body.
constexpr RowCodes SYMMETRIC{false, 128, static_cast<float>(1e-30 * 127), static_cast<float>(1.0 / 127)};

// Columns that become int8 codes, a scale each: their largest magnitude, at least `least`, times `step`.
struct FloatColumns {
  const float* b;  // [k, n]
  int64_t k;
  int64_t n;
  float least;
  float step;
};

struct Normalization {
  const float* gain;  // [k], and so all others
  const float* bias;
  const float* even_gain;  // null where rows are normalized once
  const float* even_bias;
  int64_t k;
  float epsilon;
};

// Keys and values of a head, and how far their rows are apart.
struct Keys {
  const float* k;
  int64_t k_stride;
  const float* v;
  int64_t v_stride;
  int64_t count;
  int64_t width;
  int64_t value_width;
  float scale;
  const float* v_bias;  // what is added to all values, [value_width], or null
};

struct Query {
  const float* q;     // [width]
  const float* bias;  // what is added to it, [width], or null
  const float* mask;  // what is added to its scores, [count], or null
  float* y;           // [value_width]
};

struct Isa {
  const char* name;
  // Decode columns from `first` on (those beyond n are anything) to panels, MOST_PANELS of them at most, one behind the
  // other, and the sums of their columns.
  void (*unpack)(const Weight& weight, int64_t first, int64_t panels, uint8_t* to, int32_t* sums);
  void (*multiply)(const Block& block);
  void (*quantize)(const float* x, int64_t k, const RowCodes& codes, uint8_t* q, float* scale);
  // y [k] = (x - mean) / deviation * gain + bias, and `even` the same with the other gain and bias, where there are such
  void (*normalize)(const float* x, const Normalization& by, float* y, float* even);
  // Attention of any number of queries, and of few, for which keys and values are read once and as they lie.
  void (*attend)(const Keys& keys, const Query* queries, int64_t count);
  void (*attend_few)(const Keys& keys, const Query* queries, int64_t count);
  void (*quantize_blocks)(const Packed& weight, const float* x, int8_t* q, int32_t* zeros, float* scale, float* sums);
  // Columns from `first` to before `last`.
  void (*multiply_packed)(const Packed& weight, const FewRows& rows, int64_t first, int64_t last);
  // One panel from column `first` on, its columns beyond n zero, and the sums of its columns. Where it is quick, codes of
  // 4 bits are unpacked sooner than read as int8.
  bool unpacks_quickly;
  void (*unpack_packed)(const Packed& weight, int64_t first, uint8_t* to, int32_t* sums);
  // One panel from column `first` on, the sums of its columns and their scales; columns beyond n are zeros.
  void (*pack_columns)(const FloatColumns& columns, int64_t first, uint8_t* panel, int32_t* sums, float* scales);
  Bfloats bfloats;
  Encoding encoding;
  Coding coding;
};

extern const Isa PORTABLE, AVX2, AVXVNNI, AVX512, AMX, DOTPROD, I8MM;
// The best for this processor, or the one that the environment's BCT_ONNX_KERNELS names, if it can run here. Kernels
// ask when they are made.
const Isa& isa();

inline int64_t padded(int64_t k) { return (k + DEPTH - 1) / DEPTH * DEPTH; }

// Memory of this thread, aligned to 64 bytes, for one use at a time of each number.
enum Scratch {
  PANELS, DECODED, SHIFTS, ROWS, CODES, SCALES, COSTS, PLACES, WAYS, KEYS, VALUES, ASKED, SCORES, SHARES, ANSWERS, RESULTS,
  EVEN,
  SCRATCHES
};
void* scratch(Scratch which, size_t bytes);
}  // namespace bct
