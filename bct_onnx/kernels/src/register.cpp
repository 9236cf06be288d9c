// What ONNX Runtime calls when the library is registered with a session's options.

#include <map>
#include <mutex>
#include <set>

#include "functions_in_file.h"
#include "operator.h"

namespace bct {
namespace {

constexpr const char* DOMAIN = "bct_onnx";
// The options' entry that names the file they are for: every operator that is registered takes every session time.
constexpr const char* MODEL_ENTRY = "bct_onnx.model";

// Never freed: sessions may end after this library's static objects.
const std::vector<std::unique_ptr<Operator>>& operators(const char* runtime) {
  static const auto& all = [runtime]() -> std::vector<std::unique_ptr<Operator>>& {
    auto& made = *new std::vector<std::unique_ptr<Operator>>;
    add_products(made);
    add_quantizers(made);
    add_packed(made);
    add_nbits(made);
    add_gathers(made);
    add_attentions(made);
    add_activation_products(made);
    add_codings(made);
    add_tables(made);
    for (const auto& op : made) op->allow_in_place(runtime);
    return made;
  }();
  return all;
}

std::string model_of(const ort::Api& api, const ort::SessionOptions* options) {
  size_t size = 0;
  if (ort::Status* status = api.config_entry(options, MODEL_ENTRY, nullptr, &size)) api.release(status);
  std::string value(size, '\0');
  if (size == 0) return value;
  if (ort::Status* status = api.config_entry(options, MODEL_ENTRY, value.data(), &size)) {
    api.release(status);
    return "";
  }
  return value.c_str();
}

// The domain with the operators of these names, or with all where there are none.
ort::Domain* domain_of(const ort::Api& api, const char* runtime, const std::set<std::string>& names) {
  // Sessions refer to a domain as long as they live, so it stays.
  static auto& known = *new std::map<std::set<std::string>, ort::Domain*>;
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  ort::Domain*& domain = known[names];
  if (domain != nullptr) return domain;
  if (ort::Status* status = api.create_domain(DOMAIN, &domain)) {
    api.release(status);
    return nullptr;
  }
  auto add = [&](const Operator& op) {
    if (ort::Status* status = api.add_operator(domain, &op)) api.release(status);
  };
  for (const auto& op : operators(runtime)) {
    if (names.empty() || names.count(op->called) != 0) add(*op);
  }
  for (const std::string& name : names) {
    // Like all others it stays.
    if (const Operator* op = joined_product(name).release()) add(*op);
  }
  return domain;
}

}  // namespace
}  // namespace bct

// It fails never: what is not registered runs as the function that is in the file.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::API_VERSION);
  if (api == nullptr) return nullptr;
  bct::g_api = api;
  const std::set<std::string> names = bct::functions_in_file(bct::model_of(*api, options), bct::DOMAIN);
  ort::Domain* domain = bct::domain_of(*api, base->version(), names);
  if (domain == nullptr) return nullptr;
  if (ort::Status* status = api->add_domain(options, domain)) api->release(status);
  return nullptr;
}
