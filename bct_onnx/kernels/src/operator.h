// Operators without the C API's ceremony: kernels are classes, errors exceptions that ONNX Runtime gets as statuses.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort.h"

namespace bct {

using Shape = std::vector<int64_t>;

// What does not fit: the model's or the caller's fault. The message is what users read.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool holds, const char* message);

// The table that the operators were registered with; shape inference is handed none.
extern const ort::Api* g_api;

// Number of elements; Error where it, or a dimension, is none that memory holds.
int64_t elements(const Shape& shape);

struct Tensor {
  const void* data = nullptr;
  int type = ort::ANY;
  Shape shape;

  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  int64_t size() const { return elements(shape); }
};

// A node as its kernel is made.
class Info {
 public:
  Info(const ort::Api& api, const ort::KernelInfo* info) : api_(api), info_(info) {}
  float real(const char* name) const;
  int64_t whole(const char* name) const;
  Shape wholes(const char* name) const;
  // Whether an input is constant, and then what it holds.
  bool constant(size_t index, Tensor* out) const;

 private:
  const ort::Api& api_;
  const ort::KernelInfo* info_;
};

// A call of a kernel.
class Call {
 public:
  Call(const ort::Api& api, ort::Context* context) : api_(api), context_(context) {}
  Tensor input(size_t index) const;
  // An input whose type and shape are known: its data alone.
  const void* input_data(size_t index) const;
  template <typename T>
  T* output(size_t index, const Shape& shape) const {
    return static_cast<T*>(output_data(index, shape));
  }
  // Run body(0) to body(total - 1) on the session's threads.
  void parallel(size_t total, const std::function<void(size_t)>& body) const;

 private:
  void* output_data(size_t index, const Shape& shape) const;
  const ort::Api& api_;
  ort::Context* context_;
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(const Call& call) = 0;
  const ort::Api* api = nullptr;
};

// What shape inference knows of a tensor: lengths, -1 where unknown, and their names.
struct Dims {
  Shape lengths;
  std::vector<std::string> names;
};

// Returns the shapes of outputs; an empty list where they stay unknown.
using Infer = std::function<std::vector<Dims>(const std::vector<Dims>& inputs)>;

struct Operator : ort::CustomOp {
  Operator(std::string name, std::vector<int> inputs, std::vector<int> outputs,
           std::function<std::unique_ptr<Kernel>(const Info&)> make, Infer shapes);
  // Tells a runtime of this version of what can be done in place, if it asks.
  void allow_in_place(const char* runtime);
  std::string called;
  std::vector<int> inputs;
  std::vector<int> outputs;
  std::function<std::unique_ptr<Kernel>(const Info&)> make;
  Infer shapes;
  // Whether the first output may lie where the first input does, if nothing else reads that: each of its numbers is made
  // of inputs that are not written before.
  bool in_place = false;
};

// All operators, one list a file.
void add_products(std::vector<std::unique_ptr<Operator>>& all);
void add_quantizers(std::vector<std::unique_ptr<Operator>>& all);
void add_packed(std::vector<std::unique_ptr<Operator>>& all);
void add_nbits(std::vector<std::unique_ptr<Operator>>& all);
void add_gathers(std::vector<std::unique_ptr<Operator>>& all);
void add_attentions(std::vector<std::unique_ptr<Operator>>& all);
void add_activation_products(std::vector<std::unique_ptr<Operator>>& all);
void add_codings(std::vector<std::unique_ptr<Operator>>& all);
void add_tables(std::vector<std::unique_ptr<Operator>>& all);

// The operator of a name that lists parts, of which there are as many as there are orders of parts; null for others.
std::unique_ptr<Operator> joined_product(const std::string& name);

}  // namespace bct
