// BlockMatMul: passes/functions/block_matmul.py.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "endings.h"
#include "matrix.h"
#include "weights.h"

namespace bct {
namespace {

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
  Product(const Info& info, const Packing* packing, const Endings& endings) : packing_(packing), endings_(endings) {
    if (endings_.alpha) alpha_ = info.real("alpha");
    if (!endings_.leaves) writer_ = std::make_unique<RowWriter>(info, endings_.rows, "next_zero_point");
    const int64_t zero_point = info.whole("zero_point");
    require(zero_point >= 0 && zero_point <= 255, "zero_point is no uint8");
    zero_point_ = static_cast<int32_t>(zero_point);
    tensor_scale_ = info.real("tensor_scale");
    if (packing_ != nullptr) {
      codes_ = info.wholes("codes"), shifts_ = info.wholes("shifts"), matrix_ = info.wholes("matrix");
      planes_ = packing_->widths().size();
    }
    scale_input_ = packing_ == nullptr ? 3 : 3 + planes_ + 1;
    Tensor scale;
    if (info.constant(scale_input_, &scale)) scale_ = floats(scale, tensor_scale_), scale_shape_ = scale.shape;
    std::vector<Tensor> inputs(scale_input_);
    bool constant = true;
    for (size_t i = 2; i < scale_input_; ++i) {
      constant = (is_turn(i) || info.constant(i, &inputs[i])) && constant;
    }
    if (!constant) return;
    weight_ = read_weight(inputs), weight_shape_ = inputs[2].shape, constant_ = true;
  }

  void compute(const Call& call) override {
    const Tensor q = call.input(0), row_scale = call.input(1);
    // Unpacked at the first call, so that making a session is no work. A batch of weights is decoded at every call.
    if (constant_ && (packing_ != nullptr || weight_shape_.size() == 2)) {
      std::call_once(unpacked_, [&] { panels_ = unpack_all(isa_, call, weight_); });
    }
    Matrix matrix{weight_, panels_.codes ? &panels_ : nullptr, scale_.data(), zero_point_, nullptr,
                  endings_.curve, alpha_};
    Shape weight_shape = weight_shape_, scale_shape = scale_shape_;
    if (!constant_) {
      std::vector<Tensor> inputs(scale_input_);
      for (size_t i = 2; i < scale_input_; ++i) {
        if (!is_turn(i)) inputs[i] = call.input(i);
      }
      matrix.weight = read_weight(inputs);
      weight_shape = inputs[2].shape;
    }
    std::vector<float> scales;
    if (scale_.empty()) {
      const Tensor scale = call.input(scale_input_);
      scales = floats(scale, tensor_scale_), scale_shape = scale.shape;
      matrix.column_scale = scales.data();
    }
    if (endings_.bias) {
      const Tensor bias = call.input(scale_input_ + 1);
      require(!bias.shape.empty() && bias.shape.back() == matrix.weight.n && bias.size() == matrix.weight.n,
              "bias is not one number a column");
      matrix.bias = bias.as<float>();
    }
    if (!endings_.residual) return run(call, q, row_scale, matrix, weight_shape, scale_shape, {});
    run(call, q, row_scale, matrix, weight_shape, scale_shape, call.input(scale_input_ + endings_.inputs()));
  }

 private:
  size_t rows_input() const { return scale_input_ + 1 + endings_.inputs(); }

  bool is_turn(size_t input) const { return packing_ != nullptr && input == 3 + planes_; }

  Weight read_weight(const std::vector<Tensor>& inputs) const {
    if (packing_ != nullptr) {
      const std::vector<Tensor> planes(inputs.begin() + 3, inputs.begin() + 3 + static_cast<ptrdiff_t>(planes_));
      return packed_weight(*packing_, planes, inputs[2], codes_, shifts_, matrix_);
    }
    const Tensor& weight = inputs[2];
    require(weight.shape.size() >= 2, "the weight is no matrix");
    Weight found{};
    found.bits = 8, found.count = 1, found.widths[0] = 8;
    found.planes[0] = weight.as<uint8_t>();
    found.k = weight.shape[weight.shape.size() - 2], found.n = weight.shape.back();
    elements({found.k, found.n});
    return found;
  }

  void run(const Call& call, const Tensor& q, const Tensor& row_scale, Matrix matrix, const Shape& weight_shape,
           const Shape& scale_shape, const Tensor& residual) const {
    const Weight& weight = matrix.weight;
    require(!q.shape.empty() && q.shape.back() == weight.k, "q and the weight differ in k");
    const int64_t rows = weight.k != 0 ? q.size() / weight.k : elements({q.shape.begin(), q.shape.end() - 1});
    Shape scales = q.shape;
    scales.back() = 1;
    require(row_scale.shape == scales, "row_scale is not one number a row of q");
    const size_t axes = packing_ == nullptr ? weight_shape.size() : 2;
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
  const Packing* packing_;
  const Endings& endings_;
  std::unique_ptr<RowWriter> writer_;
  float alpha_ = 1;
  size_t planes_ = 0, scale_input_ = 0;
  int32_t zero_point_ = 0;
  float tensor_scale_ = 1;
  Shape codes_, shifts_, matrix_;
  bool constant_ = false;
  Weight weight_{};
  std::once_flag unpacked_;
  Panels panels_;
  Shape weight_shape_, scale_shape_;
  std::vector<float> scale_;
};

}  // namespace

void add_products(std::vector<std::unique_ptr<Operator>>& all) {
  static const std::vector<Packing> packed = packings();
  static const std::vector<Endings> endings = all_endings();
  for (const Endings& ending : endings) {
    auto add = [&](const std::string& suffix, std::vector<int> inputs, const Packing* packing) {
      const size_t scale = inputs.size() - 1;
      inputs.insert(inputs.end(), ending.inputs(), ort::FLOAT);
      const size_t residual = inputs.size() - 1;
      std::vector<int> outputs{ort::FLOAT};
      if (!ending.leaves) {
        for (const int type : ending.rows.inputs()) inputs.push_back(type);
        outputs = ending.rows.outputs();
      }
      all.push_back(std::make_unique<Operator>(
          "BlockMatMul" + suffix + ending.name, inputs, outputs,
          [packing, &ending](const Info& info) { return std::make_unique<Product>(info, packing, ending); },
          [packing, &ending, scale, residual](const std::vector<Dims>& in) {
            const Dims& columns = packing == nullptr ? in[2] : in[scale];
            if (in[0].lengths.empty() || columns.lengths.empty()) return std::vector<Dims>{};
            if (packing == nullptr && columns.lengths.size() != 2) return std::vector<Dims>{};
            Dims y = in[0];
            y.lengths.back() = columns.lengths.back();
            y.names.back() = packing == nullptr ? columns.names.back() : "";
            if (ending.residual) y = sum_of(y, in[residual]);
            if (!ending.leaves) return ending.rows.shapes(y);
            return y.lengths.empty() ? std::vector<Dims>{} : std::vector<Dims>{y};
          }));
    };
    add("8", {ort::UINT8, ort::FLOAT, ort::INT8, ort::ANY}, nullptr);
    for (const Packing& packing : packed) {
      std::vector<int> inputs{ort::UINT8, ort::FLOAT, ort::UINT8};
      for (const int type : packing.types()) inputs.push_back(type);
      inputs.push_back(ort::FLOAT);  // turn
      inputs.push_back(ort::ANY);    // scale
      add(packing.suffix(), inputs, &packing);
    }
  }
}

}  // namespace bct
