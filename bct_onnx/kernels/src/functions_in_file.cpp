#include "functions_in_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <string_view>

namespace bct {
namespace {

// Fields of ModelProto and FunctionProto in onnx.proto.
constexpr uint64_t FUNCTIONS = 25, NAME = 1, DOMAIN = 10;

// A file's bytes, mapped: only pages that are looked at are read.
struct Mapped {
  explicit Mapped(const std::string& path) : file(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat about {};
    if (file < 0 || fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size <= 0) return;
    const auto length = static_cast<size_t>(about.st_size);
    void* found = mmap(nullptr, length, PROT_READ, MAP_PRIVATE, file, 0);
    if (found != MAP_FAILED) bytes = {static_cast<const char*>(found), length};
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() {
    if (!bytes.empty()) munmap(const_cast<char*>(bytes.data()), bytes.size());
    if (file >= 0) close(file);
  }
  int file;
  std::string_view bytes;
};

bool take_varint(std::string_view& bytes, uint64_t* out) {
  *out = 0;
  for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    *out |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return true;
  }
  return false;
}

// Calls each(field, bytes) for what has a length (protobuf's wire type 2), to the message's end or where it is none.
template <typename Each>
void each_field(std::string_view message, const Each& each) {
  uint64_t tag = 0, length = 0;
  while (take_varint(message, &tag)) {
    const uint64_t kind = tag & 7;
    length = kind == 1 ? 8 : kind == 5 ? 4 : 0;
    if (kind == 0 && !take_varint(message, &tag)) return;
    if (kind == 2 && !take_varint(message, &length)) return;
    if (kind == 3 || kind == 4 || kind > 5 || length > message.size()) return;
    if (kind == 2) each(tag >> 3, message.substr(0, length));
    message.remove_prefix(length);
  }
}

}  // namespace

std::set<std::string> functions_in_file(const std::string& path, const std::string& domain) {
  std::set<std::string> found;
  const Mapped file(path);
  each_field(file.bytes, [&](uint64_t field, std::string_view function) {
    if (field != FUNCTIONS) return;
    std::string_view name, of;
    each_field(function, [&](uint64_t inner, std::string_view text) {
      if (inner == NAME) name = text;
      if (inner == DOMAIN) of = text;
    });
    if (of == domain) found.emplace(name);
  });
  return found;
}

}  // namespace bct
