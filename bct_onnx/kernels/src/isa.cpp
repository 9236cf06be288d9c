#include "isa.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace bct {
namespace {

#if defined(__x86_64__)
bool runs_amx() {
#if defined(__linux__)
  // Linux wants to be asked, once a process, before tiles are used: their state is large.
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;
  unsigned a = 7, b = 0, c = 0, d = 0;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  const bool tiles = (d >> 24 & 1) != 0 && (d >> 25 & 1) != 0 && (d >> 22 & 1) != 0;
  return tiles && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
  return false;
#endif
}

bool runs(const Isa& isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  if (&isa == &AMX) return avx512 && __builtin_cpu_supports("avx512bf16") && runs_amx();
  if (&isa == &AVX512) return avx512;
  if (&isa == &AVXVNNI) {
    unsigned a = 7, b = 0, c = 1, d = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return avx2 && (a >> 4 & 1) != 0;
  }
  return &isa == &AVX2 ? avx2 : true;
}

const Isa* const ALL[] = {&AMX, &AVX512, &AVXVNNI, &AVX2, &PORTABLE};
#elif defined(__linux__) && defined(__aarch64__)
bool runs(const Isa& isa) {
  // Bits of what Linux says of the processor.
  constexpr unsigned long DOT_PRODUCTS = 1UL << 20, MATRICES = 1UL << 13;
  const bool dots = (getauxval(AT_HWCAP) & DOT_PRODUCTS) != 0;
  if (&isa == &I8MM) return dots && (getauxval(AT_HWCAP2) & MATRICES) != 0;
  return &isa == &DOTPROD ? dots : true;
}

const Isa* const ALL[] = {&I8MM, &DOTPROD, &PORTABLE};
#else
bool runs(const Isa&) { return true; }
const Isa* const ALL[] = {&PORTABLE};
#endif

struct Memory {
  void* data = nullptr;
  size_t bytes = 0;
  ~Memory() { std::free(data); }
};

}  // namespace

const Isa& isa() {
  constexpr size_t COUNT = sizeof ALL / sizeof ALL[0];
  static const auto runnable = [] {
    std::array<bool, COUNT> found{};
    for (size_t i = 0; i < COUNT; ++i) found[i] = runs(*ALL[i]);
    return found;
  }();
  const char* wanted = std::getenv("BCT_ONNX_KERNELS");
  const Isa* best = nullptr;
  for (size_t i = 0; i < COUNT; ++i) {
    if (!runnable[i]) continue;
    if (wanted != nullptr && std::strcmp(wanted, ALL[i]->name) == 0) return *ALL[i];
    if (best == nullptr) best = ALL[i];
  }
  return *best;
}

void* scratch(Scratch which, size_t bytes) {
  static thread_local Memory memory[SCRATCHES];
  Memory& it = memory[which];
  if (it.bytes < bytes) {
    std::free(it.data);
    it.bytes = 0;
    const size_t wanted = (bytes + 4095) / 4096 * 4096;
    it.data = std::aligned_alloc(64, wanted);
    if (it.data == nullptr) throw std::bad_alloc();
    it.bytes = wanted;
  }
  return it.data;
}

}  // namespace bct
