// The weight of a product in parts: columns side by side, each part with codes of its own width. Mostly there is one.
#pragma once

#include <string>
#include <vector>

#include "operator.h"
#include "weights.h"

namespace bct {

// How parts lie in the file, null for int8.
using Packings = std::vector<const Packing*>;

// The packings whose suffixes `name` begins with, the longest each; `name` keeps what is behind them.
Packings take_packings(std::string& name);

// Types of the inputs that hold parts: shifts, planes and a turn each, or int8.
std::vector<int> types_of(const Packings& packings);

// Parts as the inputs of a node from `first` to before `end` hold them.
class Parts {
 public:
  Parts(const Info& info, const Packings& packings, size_t first);
  size_t end() const { return end_; }
  // Whether the weight is one of int8, which may be a batch of matrices.
  bool stored() const { return parts_.size() == 1 && parts_.front().packing == nullptr; }
  // Whether all is constant that the weight is made of, and then the inputs that hold it.
  bool constant(const Info& info, std::vector<Tensor>* inputs) const;
  std::vector<Tensor> inputs(const Call& call) const;
  std::vector<Weight> read(const std::vector<Tensor>& inputs) const;

 private:
  struct Part {
    const Packing* packing;
    size_t first, planes;
    Shape codes, shifts, matrix;
  };
  bool is_turn(size_t input) const;
  size_t first_, end_;
  std::vector<Part> parts_;
};

// The weight that several make; its codes are in panels only.
Weight whole(const std::vector<Weight>& parts);

}  // namespace bct
