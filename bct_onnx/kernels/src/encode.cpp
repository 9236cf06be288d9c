// What passes/formats/compiled.py calls: plain C functions that return 0, or 1 where memory does not suffice.
#include "encode.h"

#include <new>

#include "isa.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
template <typename Arguments>
int call(void (*function)(const Arguments&), const Arguments* arguments) {
  try {
    function(*arguments);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
}  // namespace

EXPORT int bct_encode_trellis(const bct::TrellisWeight* it) { return call(bct::isa().encoding.encode_trellis, it); }
EXPORT int bct_expect_scales(const bct::Expected* it) { return call(bct::isa().encoding.expect_scales, it); }
EXPORT int bct_try_scales(const bct::Tried* it) { return call(bct::isa().encoding.try_scales, it); }
EXPORT int bct_round_codes(const bct::Rounded* it) { return call(bct::isa().encoding.round_codes, it); }
