#include "operator.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>

namespace bct {
namespace {

void check(const ort::Api& api, ort::Status* status, const char* what) {
  if (status == nullptr) return;
  api.release(status);
  throw Error(what);
}

struct OwnedShape {
  explicit OwnedShape(const ort::Api& api) : api(api) {}
  OwnedShape(const OwnedShape&) = delete;
  OwnedShape& operator=(const OwnedShape&) = delete;
  ~OwnedShape() {
    if (info != nullptr) api.release(info);
  }
  const ort::Api& api;
  ort::ShapeInfo* info = nullptr;
};

Tensor tensor(const ort::Api& api, const ort::Value* value) {
  if (value == nullptr) throw Error("an input is missing");
  OwnedShape shape(api);
  check(api, api.shape(value, &shape.info), "an input is not a tensor");
  Tensor found;
  size_t rank = 0;
  check(api, api.type(shape.info, &found.type), "an input has no type");
  check(api, api.rank(shape.info, &rank), "an input has no rank");
  found.shape.resize(rank);
  check(api, api.dims(shape.info, found.shape.data(), rank), "an input has no shape");
  void* data = nullptr;
  check(api, api.tensor_data(value, &data), "an input has no data");
  found.data = data;
  return found;
}

// Runs `body` and returns what it throws as a status.
template <typename Body>
ort::Status* guarded(const ort::Api& api, const std::string& name, const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return api.create_status(ort::INVALID_ARGUMENT, (name + ": " + error.what()).c_str());
  } catch (...) {
    return api.create_status(ort::INVALID_ARGUMENT, (name + ": failed").c_str());
  }
}

const Operator& self(const ort::CustomOp* op) { return *static_cast<const Operator*>(op); }

struct Made {
  std::unique_ptr<Kernel> kernel;
  const ort::Api* api;
  std::string name;
};

ort::Status* create(const ort::CustomOp* op, const ort::Api* api, const ort::KernelInfo* info, void** out) {
  return guarded(*api, self(op).called, [&] {
    *out = new Made{self(op).make(Info(*api, info)), api, self(op).called};
  });
}

ort::Status* compute(void* made, ort::Context* context) {
  auto* it = static_cast<Made*>(made);
  return guarded(*it->api, it->name, [&] { it->kernel->compute(Call(*it->api, context)); });
}

bool read_dims(const ort::ShapeContext* context, size_t index, Dims* out) {
  ort::ShapeInfo* shape = nullptr;  // stays the context's
  size_t rank = 0;
  if (ort::Status* status = g_api->input_shape(context, index, &shape)) {
    g_api->release(status);
    return false;
  }
  if (shape == nullptr) return false;
  check(*g_api, g_api->rank(shape, &rank), "no rank");
  out->lengths.resize(rank);
  check(*g_api, g_api->dims(shape, out->lengths.data(), rank), "no dimensions");
  std::vector<const char*> names(rank, nullptr);
  check(*g_api, g_api->symbols(shape, names.data(), rank), "no symbols");
  for (const char* name : names) out->names.emplace_back(name == nullptr ? "" : name);
  return true;
}

// A length that is neither known nor named would be taken for -1.
void name_unknown(Dims& dims) {
  static std::atomic<uint64_t> count{0};
  for (size_t i = 0; i < dims.lengths.size(); ++i) {
    if (dims.lengths[i] < 0 && dims.names[i].empty()) dims.names[i] = "bct_onnx_" + std::to_string(count++);
  }
}

ort::Status* infer(const ort::CustomOp* op, ort::ShapeContext* context) {
  // What cannot be inferred is left open: running the model finds out, or says what is wrong.
  try {
    std::vector<Dims> inputs(self(op).inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!read_dims(context, i, &inputs[i])) return nullptr;
    }
    const std::vector<Dims> outputs = self(op).shapes(inputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      OwnedShape shape(*g_api);
      check(*g_api, g_api->create_shape(&shape.info), "no shape");
      check(*g_api, g_api->set_type(shape.info, self(op).outputs[i]), "no type");
      Dims dims = outputs[i];
      name_unknown(dims);
      check(*g_api, g_api->set_dims(shape.info, dims.lengths.data(), dims.lengths.size()), "no dimensions");
      std::vector<const char*> names;
      for (const std::string& name : dims.names) names.push_back(name.c_str());
      check(*g_api, g_api->set_symbols(shape.info, names.data(), names.size()), "no symbols");
      check(*g_api, g_api->set_output_shape(context, i, shape.info), "no output shape");
    }
  } catch (const std::exception&) {
    return nullptr;
  }
  return nullptr;
}

}  // namespace

const ort::Api* g_api = nullptr;

void require(bool holds, const char* message) {
  if (!holds) throw Error(message);
}

int64_t elements(const Shape& shape) {
  int64_t total = 1;
  bool empty = false;
  for (const int64_t length : shape) {
    require(length >= 0, "a dimension is negative");
    empty |= length == 0;
    if (!empty) {
      require(total <= std::numeric_limits<int64_t>::max() / 64 / length, "a shape is too large");
      total *= length;
    }
  }
  return empty ? 0 : total;
}

float Info::real(const char* name) const {
  float value = 0;
  check(api_, api_.float_attribute(info_, name, &value), (std::string("no attribute ") + name).c_str());
  return value;
}

int64_t Info::whole(const char* name) const {
  int64_t value = 0;
  check(api_, api_.int_attribute(info_, name, &value), (std::string("no attribute ") + name).c_str());
  return value;
}

Shape Info::wholes(const char* name) const {
  const std::string missing = std::string("no attribute ") + name;
  size_t count = 0;
  check(api_, api_.ints_attribute(info_, name, nullptr, &count), missing.c_str());
  Shape values(count);
  if (count != 0) check(api_, api_.ints_attribute(info_, name, values.data(), &count), missing.c_str());
  return values;
}

bool Info::constant(size_t index, Tensor* out) const {
  int is_constant = 0;
  const ort::Value* value = nullptr;
  check(api_, api_.constant_input(info_, index, &is_constant, &value), "an input is missing");
  if (is_constant == 0 || value == nullptr) return false;
  *out = tensor(api_, value);
  return true;
}

Tensor Call::input(size_t index) const {
  const ort::Value* value = nullptr;
  check(api_, api_.input(context_, index, &value), "an input is missing");
  return tensor(api_, value);
}

const void* Call::input_data(size_t index) const {
  const ort::Value* value = nullptr;
  check(api_, api_.input(context_, index, &value), "an input is missing");
  require(value != nullptr, "an input is missing");
  void* data = nullptr;
  check(api_, api_.tensor_data(value, &data), "an input has no data");
  return data;
}

void* Call::output_data(size_t index, const Shape& shape) const {
  ort::Value* value = nullptr;
  check(api_, api_.output(context_, index, shape.data(), shape.size(), &value), "no memory for an output");
  void* data = nullptr;
  if (value != nullptr) check(api_, api_.tensor_data(value, &data), "an output has no data");
  return data;
}

void Call::parallel(size_t total, const std::function<void(size_t)>& body) const {
  if (total == 1) return body(0);
  auto run = [](void* data, size_t index) { (*static_cast<const std::function<void(size_t)>*>(data))(index); };
  check(api_, api_.parallel_for(context_, run, total, const_cast<void*>(static_cast<const void*>(&body))),
        "no threads");
}

Operator::Operator(std::string name, std::vector<int> inputs, std::vector<int> outputs,
                   std::function<std::unique_ptr<Kernel>(const Info&)> make, Infer shapes)
    : ort::CustomOp{},
      called(std::move(name)),
      inputs(std::move(inputs)),
      outputs(std::move(outputs)),
      make(std::move(make)),
      shapes(std::move(shapes)) {
  version = ort::API_VERSION;
  CustomOp::name = [](const ort::CustomOp* op) { return self(op).called.c_str(); };
  provider = [](const ort::CustomOp*) -> const char* { return "CPUExecutionProvider"; };
  input_type = [](const ort::CustomOp* op, size_t i) { return self(op).inputs[i]; };
  input_count = [](const ort::CustomOp* op) { return self(op).inputs.size(); };
  output_type = [](const ort::CustomOp* op, size_t i) { return self(op).outputs[i]; };
  output_count = [](const ort::CustomOp* op) { return self(op).outputs.size(); };
  destroy = [](void* made) { delete static_cast<Made*>(made); };
  input_characteristic = [](const ort::CustomOp*, size_t) { return 0; };
  output_characteristic = [](const ort::CustomOp*, size_t) { return 0; };
  input_memory = [](const ort::CustomOp*, size_t) { return 0; };
  variadic_input_least = variadic_output_least = [](const ort::CustomOp*) { return 1; };
  variadic_input_same = variadic_output_same = [](const ort::CustomOp*) { return 0; };
  create = bct::create;
  compute = bct::compute;
  infer = bct::infer;
  first_version = [](const ort::CustomOp*) { return 1; };
  last_version = [](const ort::CustomOp*) { return INT32_MAX; };
}

void Operator::allow_in_place(const char* runtime) {
  // Versions are 1.x.y; those before it read no further than they know.
  const char* minor = std::strchr(runtime, '.');
  if (!in_place || minor == nullptr || std::strtoul(minor + 1, nullptr, 10) < ort::VERSION_IN_PLACE) return;
  version = ort::VERSION_IN_PLACE;
  may_in_place = [](int** inputs, int** outputs) -> size_t {
    *inputs = new int(0), *outputs = new int(0);
    return 1;
  };
  release_in_place = [](int* inputs, int* outputs) { delete inputs, delete outputs; };
}

}  // namespace bct
