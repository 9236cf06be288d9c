#define LEVEL 0
#include "core.inc"

namespace bct {
extern const Isa PORTABLE = {"portable", unpack, multiply, quantize, normalize, attend, attend_few, quantize_blocks,
                            multiply_packed, unpacks_quickly, unpack_packed, pack_columns, bfloats, encoding, coding};
}
