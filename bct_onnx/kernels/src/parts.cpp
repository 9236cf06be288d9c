#include "parts.h"

namespace bct {
namespace {

// Inputs of a part: shifts, planes and a turn.
size_t inputs_of(const Packing* packing) { return packing == nullptr ? 1 : packing->widths().size() + 2; }

Weight stored_weight(const Tensor& weight) {
  const Shape& shape = weight.shape;
  require(shape.size() >= 2, "the weight is no matrix");
  Weight found{};
  found.bits = 8, found.count = 1, found.widths[0] = 8;
  found.planes[0] = weight.as<uint8_t>();
  found.k = shape[shape.size() - 2], found.n = shape.back();
  elements({found.k, found.n});
  return found;
}

}  // namespace

Packings take_packings(std::string& name) {
  Packings found;
  for (;;) {
    std::string longest = name.rfind("8", 0) == 0 ? "8" : "";
    const Packing* best = nullptr;
    for (const Packing& packing : packings()) {
      const std::string suffix = packing.suffix();
      if (suffix.size() > longest.size() && name.rfind(suffix, 0) == 0) longest = suffix, best = &packing;
    }
    if (longest.empty()) return found;
    found.push_back(best);
    name.erase(0, longest.size());
  }
}

std::vector<int> types_of(const Packings& packings) {
  std::vector<int> found;
  for (const Packing* packing : packings) {
    if (packing == nullptr) {
      found.push_back(ort::INT8);
      continue;
    }
    found.push_back(ort::UINT8);
    for (const int type : packing->types()) found.push_back(type);
    found.push_back(ort::FLOAT);
  }
  return found;
}

Parts::Parts(const Info& info, const Packings& packings, size_t first) : first_(first), end_(first) {
  for (const Packing* packing : packings) {
    // Attributes of one alone have no number.
    const std::string number = packings.size() == 1 ? "" : std::to_string(parts_.size());
    auto lengths = [&](const char* name) { return packing == nullptr ? Shape{} : info.wholes((name + number).c_str()); };
    parts_.push_back({packing, end_, inputs_of(packing) - 2, lengths("codes"), lengths("shifts"), lengths("matrix")});
    end_ += inputs_of(packing);
  }
}

bool Parts::is_turn(size_t input) const {
  for (const Part& part : parts_) {
    if (part.packing != nullptr && input == part.first + part.planes + 1) return true;
  }
  return false;
}

bool Parts::constant(const Info& info, std::vector<Tensor>* inputs) const {
  inputs->resize(end_);
  bool all = true;
  for (size_t i = first_; i < end_; ++i) all = (is_turn(i) || info.constant(i, &(*inputs)[i])) && all;
  return all;
}

std::vector<Tensor> Parts::inputs(const Call& call) const {
  std::vector<Tensor> found(end_);
  for (size_t i = first_; i < end_; ++i) {
    if (!is_turn(i)) found[i] = call.input(i);
  }
  return found;
}

std::vector<Weight> Parts::read(const std::vector<Tensor>& inputs) const {
  std::vector<Weight> found;
  for (const Part& part : parts_) {
    const auto from = inputs.begin() + static_cast<ptrdiff_t>(part.first);
    if (part.packing == nullptr) {
      require(parts_.size() == 1 || from->shape.size() == 2, "a part of the weight is no matrix");
      found.push_back(stored_weight(*from));
    } else {
      const std::vector<Tensor> planes(from + 1, from + 1 + static_cast<ptrdiff_t>(part.planes));
      found.push_back(packed_weight(*part.packing, planes, *from, part.codes, part.shifts, part.matrix));
    }
  }
  return found;
}

Weight whole(const std::vector<Weight>& parts) {
  Weight found = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    require(parts[i].k == found.k, "parts of the weight differ in k");
    found.n += parts[i].n;
    elements({found.k, found.n});
  }
  return found;
}

}  // namespace bct
