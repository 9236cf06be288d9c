// The numbers above zero by the bits of a code in a trellis, of 2 to 5 bits: passes/formats/trellis.py.
#pragma once

#include <cstdint>

namespace bct {

constexpr int8_t ABOVE_ZERO[4][32] = {
    {5, 18, 37, 63},
    {2, 7, 13, 19, 27, 37, 48, 63},
    {1, 4, 7, 10, 13, 16, 19, 23, 26, 30, 35, 38, 43, 48, 55, 63},
    {1,  2,  4,  5,  7,  9,  10, 12, 14, 16, 17, 19, 21, 22, 24, 26,
     28, 30, 31, 33, 35, 36, 38, 40, 41, 43, 45, 48, 51, 54, 58, 63},
};
// At this width levels stand for themselves.
constexpr int WHOLE = 6;

}  // namespace bct
