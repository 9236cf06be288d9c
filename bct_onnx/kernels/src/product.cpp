// BlockMatMul: passes/functions/block_matmul.py.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "endings.h"
#include "matrix.h"
#include "parts.h"

namespace bct {
namespace {

constexpr const char* JOINED = "BlockMatMulJoined";
// The input where the weight begins.
constexpr size_t WEIGHT = 2;

// The axes before the last two, as of the shorter ones' broadcast to `rank`.
Shape batch_of(const Shape& shape, size_t rank) {
  Shape found(rank, 1);
  for (size_t i = 0; i + 2 < shape.size(); ++i) found[rank - (shape.size() - 2) + i] = shape[i];
  return found;
}

int64_t offset(const Shape& batch, const Shape& index) {
  int64_t found = 0;
  for (size_t i = 0; i < batch.size(); ++i) found = found * batch[i] + (batch[i] == 1 ? 0 : index[i]);
  return found;
}

// Where a product goes: to the output, or to memory of its own, where it is added up or leaves as rows of codes.
struct Result {
  Result(const Call& call, const Shape& shape, const Tensor& addend, bool leaves)
      : call(call), shape(shape), addend(addend), leaves(leaves) {
    if (addend.data == nullptr || addend.shape == shape) {
      residual = addend.as<float>();
      if (leaves) y = call.output<float>(0, shape);
    } else {
      sum_shape = broadcast(shape, addend.shape);
    }
  }

  // Whether rows become codes as they are made.
  bool at_once() const { return !leaves && sum_shape.empty(); }

  float* floats() {
    if (y != nullptr) return y;
    own.resize(static_cast<size_t>(elements(shape)));
    return own.data();
  }

  // Adds what is to be added; rows that do not leave become codes.
  void finish(const Isa& isa, const RowWriter* writer, size_t index) {
    const bool sums = !sum_shape.empty();
    if (sums) {
      std::vector<float> sum(leaves ? 0 : static_cast<size_t>(elements(sum_shape)));
      float* to = leaves ? call.output<float>(0, sum_shape) : sum.data();
      add_rows(call, own.data(), shape, addend.as<float>(), addend.shape, to, sum_shape);
      if (!leaves) own.swap(sum);
    }
    if (leaves) return;
    const RowEnding ending = writer->begin(call, isa, sums ? sum_shape : shape, index);
    if (!own.empty()) ending.finish_all(call, own.data(), static_cast<int64_t>(own.size()) / ending.k);
  }

  const Call& call;
  const Shape& shape;
  const Tensor& addend;
  bool leaves;
  Shape sum_shape;
  std::vector<float> own;
  const float* residual = nullptr;
  float* y = nullptr;
};

class Product : public Kernel {
 public:
  Product(const Info& info, const Packings& packings, const Endings& endings)
      : endings_(endings), parts_(info, packings, WEIGHT) {
    if (endings_.alpha) alpha_ = info.real("alpha");
    if (!endings_.leaves) writer_ = std::make_unique<RowWriter>(info, endings_.rows, "next_zero_point");
    const int64_t zero_point = info.whole("zero_point");
    require(zero_point >= 0 && zero_point <= 255, "zero_point is no uint8");
    zero_point_ = static_cast<int32_t>(zero_point);
    tensor_scale_ = info.real("tensor_scale");
    Tensor scale;
    if (info.constant(parts_.end(), &scale)) scale_ = floats(scale, tensor_scale_), scale_shape_ = scale.shape;
    std::vector<Tensor> inputs;
    constant_ = parts_.constant(info, &inputs);
    if (constant_) weights_ = parts_.read(inputs), weight_shape_ = inputs[WEIGHT].shape;
  }

  void compute(const Call& call) override {
    const Tensor q = call.input(0), row_scale = call.input(1);
    std::vector<Weight> own;
    Shape weight_shape = weight_shape_, scale_shape = scale_shape_;
    if (!constant_) {
      const std::vector<Tensor> inputs = parts_.inputs(call);
      own = parts_.read(inputs), weight_shape = inputs[WEIGHT].shape;
    }
    const std::vector<Weight>& weights = constant_ ? weights_ : own;
    Matrix matrix{whole(weights), nullptr, scale_.data(), zero_point_, nullptr, endings_.curve, alpha_};
    Panels panels;
    // Unpacked at the first call, so that making a session is no work. A batch of weights is decoded at every call.
    if (constant_ && (!parts_.stored() || weight_shape_.size() == 2)) {
      std::call_once(unpacked_, [&] { panels_ = unpack_all(isa_, call, weights_); });
      if (panels_.codes) matrix.panels = &panels_;
    } else if (weights.size() > 1) {
      panels = unpack_all(isa_, call, weights), matrix.panels = &panels;
    }
    std::vector<float> scales;
    if (scale_.empty()) {
      const Tensor scale = call.input(parts_.end());
      scales = floats(scale, tensor_scale_), scale_shape = scale.shape;
      matrix.column_scale = scales.data();
    }
    if (endings_.bias) {
      const Tensor bias = call.input(parts_.end() + 1);
      require(!bias.shape.empty() && bias.shape.back() == matrix.weight.n && bias.size() == matrix.weight.n,
              "bias is not one number a column");
      matrix.bias = bias.as<float>();
    }
    if (!endings_.residual) return run(call, q, row_scale, matrix, weight_shape, scale_shape, {});
    run(call, q, row_scale, matrix, weight_shape, scale_shape, call.input(parts_.end() + endings_.inputs()));
  }

 private:
  size_t rows_input() const { return parts_.end() + 1 + endings_.inputs(); }

  void run(const Call& call, const Tensor& q, const Tensor& row_scale, Matrix matrix, const Shape& weight_shape,
           const Shape& scale_shape, const Tensor& residual) const {
    const Weight& weight = matrix.weight;
    require(!q.shape.empty() && q.shape.back() == weight.k, "q and the weight differ in k");
    const int64_t rows = weight.k != 0 ? q.size() / weight.k : elements({q.shape.begin(), q.shape.end() - 1});
    Shape scales = q.shape;
    scales.back() = 1;
    require(row_scale.shape == scales, "row_scale is not one number a row of q");
    const size_t axes = parts_.stored() ? weight_shape.size() : 2;
    const int64_t columns = elements(scale_shape);
    const float* row_scales = row_scale.as<float>();
    Shape y_shape = q.shape;
    y_shape.back() = weight.n;
    if (axes == 2) {
      require(columns == weight.n && scale_shape.size() <= 2 && (scale_shape.empty() || scale_shape.back() == weight.n),
              "scale is not one number a column");
      Result result(call, y_shape, residual, endings_.leaves);
      Rows all{q.as<uint8_t>(), row_scales, result.residual, nullptr, rows};
      if (result.at_once()) {
        const RowEnding ending = writer_->begin(call, isa_, y_shape, rows_input());
        if (rows * weight.n != 0) multiply(isa_, call, matrix, all, ending);
        return;
      }
      all.y = result.floats();
      if (rows * weight.n != 0) multiply(isa_, call, matrix, all);
      return result.finish(isa_, writer_.get(), rows_input());
    }
    require(q.shape.size() >= 2, "a batch of weights wants a matrix of q");
    const size_t rank = std::max(q.shape.size(), axes) - 2;
    const Shape left = batch_of(q.shape, rank), right = batch_of(weight_shape, rank);
    const int64_t matrices = elements(right);
    require(columns == matrices * weight.n && scale_shape.size() == axes && scale_shape[axes - 2] == 1,
            "scale is not one number a column of each weight");
    Shape batch(rank);
    for (size_t i = 0; i < rank; ++i) {
      require(left[i] == right[i] || left[i] == 1 || right[i] == 1, "q and the weight do not broadcast");
      batch[i] = left[i] == 1 ? right[i] : left[i];
    }
    const int64_t length = q.shape[q.shape.size() - 2];
    // The row scales multiply what comes out: they broadcast with the product.
    y_shape = batch;
    y_shape.push_back(length), y_shape.push_back(weight.n);
    Result result(call, y_shape, residual, endings_.leaves);
    float* y = result.floats();
    Shape index(rank, 0);
    const int64_t total = elements(y_shape) == 0 ? 0 : elements(batch);
    for (int64_t i = 0; i < total; ++i) {
      const int64_t from = offset(left, index), with = offset(right, index);
      Matrix one = matrix;
      one.weight.planes[0] += with * weight.k * weight.n;
      one.column_scale += with * weight.n;
      const int64_t at = i * length * weight.n;
      multiply(isa_, call, one, {q.as<uint8_t>() + from * length * weight.k, row_scales + from * length,
                                 result.residual != nullptr ? result.residual + at : nullptr, y + at, length});
      for (size_t axis = rank; axis-- > 0 && ++index[axis] == batch[axis];) index[axis] = 0;
    }
    result.finish(isa_, writer_.get(), rows_input());
  }

  const Isa& isa_ = isa();
  const Endings& endings_;
  Parts parts_;
  std::unique_ptr<RowWriter> writer_;
  float alpha_ = 1;
  int32_t zero_point_ = 0;
  float tensor_scale_ = 1;
  bool constant_ = false;
  std::vector<Weight> weights_;
  std::once_flag unpacked_;
  Panels panels_;
  Shape weight_shape_, scale_shape_;
  std::vector<float> scale_;
};

std::unique_ptr<Operator> make_product(const std::string& name, const Packings& packings, const Endings& ending) {
  std::vector<int> inputs{ort::UINT8, ort::FLOAT};
  for (const int type : types_of(packings)) inputs.push_back(type);
  const size_t scale = inputs.size();
  inputs.push_back(ort::ANY);
  inputs.insert(inputs.end(), ending.inputs(), ort::FLOAT);
  const size_t residual = inputs.size() - 1;
  std::vector<int> outputs{ort::FLOAT};
  if (!ending.leaves) {
    for (const int type : ending.rows.inputs()) inputs.push_back(type);
    outputs = ending.rows.outputs();
  }
  const bool stored = packings.size() == 1 && packings.front() == nullptr;
  return std::make_unique<Operator>(
      name, inputs, outputs,
      [packings, &ending](const Info& info) { return std::make_unique<Product>(info, packings, ending); },
      [stored, &ending, scale, residual](const std::vector<Dims>& in) {
        const Dims& columns = stored ? in[WEIGHT] : in[scale];
        if (in[0].lengths.empty() || columns.lengths.empty()) return std::vector<Dims>{};
        if (stored && columns.lengths.size() != 2) return std::vector<Dims>{};
        Dims y = in[0];
        y.lengths.back() = columns.lengths.back();
        y.names.back() = stored ? columns.names.back() : "";
        if (ending.residual) y = sum_of(y, in[residual]);
        if (!ending.leaves) return ending.rows.shapes(y);
        return y.lengths.empty() ? std::vector<Dims>{} : std::vector<Dims>{y};
      });
}

const std::vector<Endings>& endings() {
  static const std::vector<Endings> all = all_endings();
  return all;
}

}  // namespace

void add_products(std::vector<std::unique_ptr<Operator>>& all) {
  for (const Endings& ending : endings()) {
    all.push_back(make_product("BlockMatMul8" + ending.name, {nullptr}, ending));
    for (const Packing& packing : packings()) {
      all.push_back(make_product("BlockMatMul" + packing.suffix() + ending.name, {&packing}, ending));
    }
  }
}

std::unique_ptr<Operator> joined_product(const std::string& name) {
  if (name.rfind(JOINED, 0) != 0) return nullptr;
  std::string rest = name.substr(std::strlen(JOINED));
  const Packings parts = take_packings(rest);
  if (parts.size() < 2) return nullptr;
  for (const Endings& ending : endings()) {
    if (ending.name == rest) return make_product(name, parts, ending);
  }
  return nullptr;
}

}  // namespace bct
