#if defined(__aarch64__)
#define LEVEL 0
#define ARM 2
#include "core.inc"

namespace bct {
extern const Isa I8MM = {"i8mm", unpack, multiply, quantize, normalize, attend, attend_few, quantize_blocks,
                            multiply_packed, unpacks_quickly, unpack_packed, pack_columns, bfloats, encoding, coding};
}
#endif
