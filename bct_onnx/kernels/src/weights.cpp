#include "weights.h"

#include <algorithm>

#include <cmath>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bct {
namespace {

float half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = bits >> 10 & 31U, fraction = bits & 1023U;
  uint32_t found = sign | (exponent + 112U) << 23 | fraction << 13;
  if (exponent == 31) found = sign | 0x7f800000U | fraction << 13;
  float value = 0;
  std::memcpy(&value, &found, sizeof value);
  if (exponent == 0) value = std::copysign(std::ldexp(static_cast<float>(fraction), -24), sign != 0 ? -1.0F : 1.0F);
  return value;
}

// Memory in whole pages of this size is read faster, where Linux makes such pages of it.
constexpr size_t LARGE_PAGE = 1 << 21;

uint8_t* make_bytes(size_t total) {
  const size_t whole = total / LARGE_PAGE * LARGE_PAGE;
  void* made = nullptr;
  require(posix_memalign(&made, whole != 0 ? LARGE_PAGE : 64, total) == 0, "no memory for the weight");
#ifdef MADV_HUGEPAGE
  // What it does not do costs speed alone. The rest behind whole pages would take one of its own.
  if (whole != 0) static_cast<void>(madvise(made, whole, MADV_HUGEPAGE));
#endif
  return static_cast<uint8_t*>(made);
}

}  // namespace

std::string Packing::suffix() const {
  if (trellis) return std::to_string(bits) + "Trellis";
  return std::to_string(bits) + (lanes && bits >= 4 ? "Lanes" : "");
}

std::vector<int> Packing::widths() const {
  std::vector<int> found;
  int left = bits;
  for (const int width : {4, 2, 1}) {
    if (left >= width) found.push_back(width), left -= width;
  }
  return found;
}

std::vector<int> Packing::types() const {
  std::vector<int> found;
  for (const int width : widths()) found.push_back(width == 4 && !lanes && !trellis ? ort::INT4 : ort::UINT8);
  return found;
}

const std::vector<Packing>& packings() {
  static const std::vector<Packing> all = [] {
    std::vector<Packing> found;
    for (int bits = 2; bits < 8; ++bits) {
      found.push_back({bits, false, false});
      if (bits >= 4) found.push_back({bits, true, false});
      if (bits <= 6) found.push_back({bits, true, true});
    }
    return found;
  }();
  return all;
}

float one_float(const Tensor& values, int64_t place) {
  return values.type == ort::FLOAT ? values.as<float>()[place] : half(values.as<uint16_t>()[place]);
}

std::vector<float> floats(const Tensor& values, float factor) {
  require(values.type == ort::FLOAT || values.type == ort::FLOAT16, "scales are neither float nor float16");
  std::vector<float> found(static_cast<size_t>(values.size()));
  // The factor comes first: that is how the function rounds.
  for (size_t i = 0; i < found.size(); ++i) found[i] = factor * one_float(values, static_cast<int64_t>(i));
  return found;
}

Weight packed_weight(const Packing& packing, const std::vector<Tensor>& planes, const Tensor& shift_bytes,
                     const Shape& codes, const Shape& shifts, const Shape& matrix) {
  require(codes.size() == 3 && shifts.size() == 3 && matrix.size() == 2, "codes are not in blocks of a matrix");
  const int64_t size = elements(codes), k = elements({codes[0], codes[1]}), n = codes[2];
  require(size > 0 && size % 8 == 0 && k % 8 == 0, "codes are no multiple of 8");
  require(shifts[0] == codes[0] && shifts[1] == 1 && shifts[2] == n, "shifts do not fit the codes");
  require((matrix[0] == k || matrix[0] == -1) && (matrix[1] == n || (matrix[1] == -1 && matrix[0] == k)),
          "the matrix does not fit the codes");
  Weight found{};
  found.bits = packing.bits, found.trellis = packing.trellis;
  found.nibbles = !packing.lanes && !packing.trellis;
  found.k = k, found.n = n, found.block = codes[1];
  for (const int width : packing.widths()) {
    const Tensor& plane = planes[static_cast<size_t>(found.count)];
    const bool is_int4 = plane.type == ort::INT4;
    require(plane.size() == (is_int4 ? size : size * width / 8), "a plane has another length than its codes");
    found.planes[found.count] = plane.as<uint8_t>();
    found.widths[found.count++] = width;
  }
  found.shifts = shift_bytes.as<uint8_t>();
  found.shift_bytes = shift_bytes.size();
  require(found.shift_bytes == (codes[0] * n + 7) / 8, "shifts have another length than their blocks");
  return found;
}

Panels make_panels(int64_t k, int64_t n) {
  const int64_t panels = panels_of(n), bytes = padded(k) * PANEL;
  const auto total = static_cast<size_t>(std::max(elements({panels, bytes}), bytes));
  Panels made{{}, std::vector<int32_t>(static_cast<size_t>(panels * PANEL))};
  made.codes.reset(make_bytes(total));
  return made;
}

}  // namespace bct
