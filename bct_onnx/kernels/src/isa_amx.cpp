#if defined(__x86_64__)
#define LEVEL 4
#include "core.inc"

namespace bct {
extern const Isa AMX = {"amx", unpack, multiply, quantize, normalize, attend, attend_few, quantize_blocks,
                            multiply_packed, unpacks_quickly, unpack_packed, pack_columns, bfloats, encoding, coding};
}
#endif
