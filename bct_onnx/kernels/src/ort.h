// What is used of ONNX Runtime's C API, declared here so that building needs none of its files. Its table of functions
// only grows: places never change, and GetApi returns null where a runtime is older than what is asked for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

struct Status;
struct Value;
struct ShapeInfo;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct Context;
struct ShapeContext;

// The first version with KernelContext_ParallelFor and shape inference of custom operators.
constexpr uint32_t API_VERSION = 17;
// The first version whose operators may say that an output can take an input's memory.
constexpr uint32_t VERSION_IN_PLACE = 18;
constexpr int INVALID_ARGUMENT = 2;

enum Type : int { ANY = 0, FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7, BOOL = 9, FLOAT16 = 10, UINT4 = 21, INT4 = 22 };

struct Api {
  void* slots[275];

  template <typename F>
  F at(int slot) const {
    return reinterpret_cast<F>(slots[slot]);
  }

  Status* create_status(int code, const char* message) const {
    return at<Status* (*)(int, const char*)>(0)(code, message);
  }
  Status* create_domain(const char* name, Domain** out) const {
    return at<Status* (*)(const char*, Domain**)>(26)(name, out);
  }
  Status* add_operator(Domain* domain, const struct CustomOp* op) const {
    return at<Status* (*)(Domain*, const struct CustomOp*)>(27)(domain, op);
  }
  Status* add_domain(SessionOptions* options, Domain* domain) const {
    return at<Status* (*)(SessionOptions*, Domain*)>(28)(options, domain);
  }
  Status* tensor_data(const Value* value, void** out) const {
    return at<Status* (*)(const Value*, void**)>(51)(value, out);
  }
  Status* create_shape(ShapeInfo** out) const { return at<Status* (*)(ShapeInfo**)>(57)(out); }
  Status* set_type(ShapeInfo* info, int type) const { return at<Status* (*)(ShapeInfo*, int)>(58)(info, type); }
  Status* set_dims(ShapeInfo* info, const int64_t* dims, size_t count) const {
    return at<Status* (*)(ShapeInfo*, const int64_t*, size_t)>(59)(info, dims, count);
  }
  Status* type(const ShapeInfo* info, int* out) const { return at<Status* (*)(const ShapeInfo*, int*)>(60)(info, out); }
  Status* rank(const ShapeInfo* info, size_t* out) const {
    return at<Status* (*)(const ShapeInfo*, size_t*)>(61)(info, out);
  }
  Status* dims(const ShapeInfo* info, int64_t* out, size_t count) const {
    return at<Status* (*)(const ShapeInfo*, int64_t*, size_t)>(62)(info, out, count);
  }
  Status* symbols(const ShapeInfo* info, const char** out, size_t count) const {
    return at<Status* (*)(const ShapeInfo*, const char**, size_t)>(63)(info, out, count);
  }
  Status* shape(const Value* value, ShapeInfo** out) const {
    return at<Status* (*)(const Value*, ShapeInfo**)>(65)(value, out);
  }
  Status* float_attribute(const KernelInfo* info, const char* name, float* out) const {
    return at<Status* (*)(const KernelInfo*, const char*, float*)>(85)(info, name, out);
  }
  Status* int_attribute(const KernelInfo* info, const char* name, int64_t* out) const {
    return at<Status* (*)(const KernelInfo*, const char*, int64_t*)>(86)(info, name, out);
  }
  Status* input(const Context* context, size_t index, const Value** out) const {
    return at<Status* (*)(const Context*, size_t, const Value**)>(90)(context, index, out);
  }
  Status* output(Context* context, size_t index, const int64_t* dims, size_t count, Value** out) const {
    return at<Status* (*)(Context*, size_t, const int64_t*, size_t, Value**)>(91)(context, index, dims, count, out);
  }
  void release(Status* status) const { at<void (*)(Status*)>(93)(status); }
  void release(ShapeInfo* info) const { at<void (*)(ShapeInfo*)>(99)(info); }
  Status* ints_attribute(const KernelInfo* info, const char* name, int64_t* out, size_t* count) const {
    return at<Status* (*)(const KernelInfo*, const char*, int64_t*, size_t*)>(163)(info, name, out, count);
  }
  // The value of a configuration entry, ended by zero; `size` is the place there is, and becomes what it takes.
  Status* config_entry(const SessionOptions* options, const char* key, char* value, size_t* size) const {
    return at<Status* (*)(const SessionOptions*, const char*, char*, size_t*)>(238)(options, key, value, size);
  }
  Status* constant_input(const KernelInfo* info, size_t index, int* is_constant, const Value** out) const {
    return at<Status* (*)(const KernelInfo*, size_t, int*, const Value**)>(249)(info, index, is_constant, out);
  }
  Status* input_shape(const ShapeContext* context, size_t index, ShapeInfo** out) const {
    return at<Status* (*)(const ShapeContext*, size_t, ShapeInfo**)>(268)(context, index, out);
  }
  Status* set_output_shape(const ShapeContext* context, size_t index, const ShapeInfo* info) const {
    return at<Status* (*)(const ShapeContext*, size_t, const ShapeInfo*)>(270)(context, index, info);
  }
  Status* set_symbols(ShapeInfo* info, const char** names, size_t count) const {
    return at<Status* (*)(ShapeInfo*, const char**, size_t)>(271)(info, names, count);
  }
  Status* parallel_for(const Context* context, void (*body)(void*, size_t), size_t total, void* data) const {
    return at<Status* (*)(const Context*, void (*)(void*, size_t), size_t, size_t, void*)>(274)(context, body, total, 0,
                                                                                               data);
  }
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

// An operator as ONNX Runtime asks for it, of version API_VERSION.
struct CustomOp {
  uint32_t version;
  void* (*create_old)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  int (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  int (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute_old)(void*, Context*);
  void (*destroy)(void*);
  int (*input_characteristic)(const CustomOp*, size_t);
  int (*output_characteristic)(const CustomOp*, size_t);
  int (*input_memory)(const CustomOp*, size_t);
  int (*variadic_input_least)(const CustomOp*);
  int (*variadic_input_same)(const CustomOp*);
  int (*variadic_output_least)(const CustomOp*);
  int (*variadic_output_same)(const CustomOp*);
  Status* (*create)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*compute)(void*, Context*);
  Status* (*infer)(const CustomOp*, ShapeContext*);
  int (*first_version)(const CustomOp*);
  int (*last_version)(const CustomOp*);
  // From VERSION_IN_PLACE on.
  size_t (*may_in_place)(int** inputs, int** outputs);
  void (*release_in_place)(int* inputs, int* outputs);
  size_t (*aliases)(int** inputs, int** outputs);
  void (*release_aliases)(int* inputs, int* outputs);
};

}  // namespace ort
