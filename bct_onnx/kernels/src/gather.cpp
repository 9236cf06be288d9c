// BlockGather and BlockGatherRows: passes/functions/block_gather.py, block_gather_packed.py. Rows are decoded as they
// are looked up.

#include <algorithm>
#include <array>

#include "levels.h"
#include "weights.h"

namespace bct {
namespace {

// Rows that are worth a task of their own.
constexpr int64_t TASK = 16;

// A piece of `width` bits in lanes of `bytes` bytes.
int piece(const uint8_t* plane, int64_t bytes, int width, int64_t place) {
  return plane[place % bytes] >> (place / bytes * width) & ((1 << width) - 1);
}

// A table [rows, k] of codes below 8 bits, or of int8 where there is no packing.
struct Table {
  const Packing* packing = nullptr;
  bool by_rows = false;  // planes have lanes of their own in every row, and codes no sign
  std::vector<Tensor> planes;
  int64_t rows = 0;
  int64_t k = 0;

  // The codes of a row that stand for themselves.
  void plain(int64_t row, int8_t* out) const {
    const std::vector<int> widths = packing->widths();
    const int half = 1 << (packing->bits - 1);
    std::fill_n(out, k, int8_t{0});
    int shift = packing->bits;
    for (size_t p = 0; p < widths.size(); ++p) {
      const int width = widths[p];
      shift -= width;
      const auto* plane = planes[p].as<uint8_t>();
      if (planes[p].type == ort::INT4) {
        for (int64_t j = 0; j < k; ++j) {
          const int64_t place = row * k + j;
          out[j] = static_cast<int8_t>(out[j] | (plane[place / 2] >> (place % 2 * 4) & 15) << shift);
        }
        continue;
      }
      const int64_t bytes = (by_rows ? k : rows * k) * width / 8;
      const uint8_t* from = by_rows ? plane + row * bytes : plane;
      const int64_t first = by_rows ? 0 : row * k;
      for (int64_t j = 0; j < k; ++j) out[j] = static_cast<int8_t>(out[j] | piece(from, bytes, width, first + j) << shift);
    }
    for (int64_t j = 0; j < k; ++j) out[j] = static_cast<int8_t>(by_rows ? out[j] - half : (out[j] ^ half) - half);
  }

  // The numbers of a row in a trellis.
  void trellis(int64_t row, const std::array<int8_t, 128>& levels, int8_t* out) const {
    const std::vector<int> widths = packing->widths();
    const int64_t steps = k / 8;
    const int last = widths.back();
    const int half = by_rows ? 0 : 1 << packing->bits, mask = (2 << packing->bits) - 1;
    unsigned before = 0;
    for (int64_t i = 0; i < steps; ++i) {
      std::array<int, 8> level{};
      unsigned path = 0;
      int shift = packing->bits + 1;
      for (size_t p = 0; p < widths.size(); ++p) {
        const int width = widths[p];
        shift -= width;
        const uint8_t* plane = planes[p].as<uint8_t>() + row * width * steps;
        for (int j = 0; j < width; ++j) {
          const unsigned byte = plane[j * steps + i];
          for (int lane = 0; lane < 8 / width; ++lane) {
            const unsigned found = byte >> (lane * width) & ((1U << width) - 1);
            level[static_cast<size_t>(lane * width + j)] |= static_cast<int>(found << shift);
            if (width == last && p + 1 == widths.size()) path |= (found & 1U) << (lane * width + j);
          }
        }
      }
      const unsigned both = path << 8 | before;
      const unsigned added = both >> 6 ^ both >> 5 ^ both >> 1 ^ before;
      before = path;
      for (int64_t eighth = 0; eighth < 8; ++eighth) {
        const int place = (level[static_cast<size_t>(eighth)] | static_cast<int>(added >> eighth & 1U)) + half;
        out[eighth * steps + i] = levels[static_cast<size_t>(place & mask)];
      }
    }
  }
};

// What levels stand for, lowest first.
std::array<int8_t, 128> all_levels(int bits) {
  std::array<int8_t, 128> found{};
  const int half = 1 << bits;
  for (int i = 0; i < 2 * half; ++i) {
    const int level = i - half;
    found[static_cast<size_t>(i)] = static_cast<int8_t>(
        bits == WHOLE ? level : level >= 0 ? ABOVE_ZERO[bits - 2][level] : -ABOVE_ZERO[bits - 2][-1 - level]);
  }
  return found;
}

int64_t index_at(const Tensor& indices, int64_t place, int64_t rows) {
  int64_t found = indices.type == ort::INT32 ? indices.as<int32_t>()[place] : indices.as<int64_t>()[place];
  if (found < 0) found += rows;
  require(found >= 0 && found < rows, "an index is out of range");
  return found;
}

class Gather : public Kernel {
 public:
  explicit Gather(const Packing* packing) : packing_(packing) {
    if (packing != nullptr && packing->trellis) levels_ = all_levels(packing->bits);
  }

 protected:
  // Looks up rows; `scale(row, number of a block, its first element, last)` is for subclasses.
  template <typename Scale>
  void look_up(const Call& call, const Table& table, const Tensor& indices, const Scale& scale) const {
    require(indices.type == ort::INT32 || indices.type == ort::INT64, "indices are no whole numbers");
    const int64_t count = indices.size(), k = table.k;
    std::vector<int64_t> rows(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) rows[static_cast<size_t>(i)] = index_at(indices, i, table.rows);
    Shape shape = indices.shape;
    shape.push_back(k);
    auto* y = call.output<float>(0, shape);
    if (count * k == 0) return;
    call.parallel(static_cast<size_t>((count + TASK - 1) / TASK), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * TASK;
      std::vector<int8_t> own(static_cast<size_t>(k));
      for (int64_t i = first; i < std::min(count, first + TASK); ++i) {
        const int64_t row = rows[static_cast<size_t>(i)];
        const int8_t* numbers = own.data();
        if (packing_ == nullptr) {
          numbers = table.planes[0].as<int8_t>() + row * k;
        } else if (packing_->trellis) {
          table.trellis(row, levels_, own.data());
        } else {
          table.plain(row, own.data());
        }
        scale(row, numbers, y + i * k);
      }
    });
  }

  const Packing* packing_;
  std::array<int8_t, 128> levels_{};
};

// Rows with a scale each and, below 8 bits, a shift a block.
class BlockGather : public Gather {
 public:
  BlockGather(const Info& info, const Packing* packing) : Gather(packing), tensor_scale_(info.real("tensor_scale")) {
    if (packing == nullptr) return;
    codes_ = info.wholes("codes"), shifts_ = info.wholes("shifts"), matrix_ = info.wholes("matrix");
    require(codes_.size() == 3, "codes are not in blocks of rows");
    const int64_t k = elements({codes_[1], codes_[2]});
    require(k > 0 && k % 8 == 0, "codes are no multiple of 8");
    require(shifts_ == Shape({codes_[0], codes_[1], 1}), "shifts do not fit the codes");
    require(matrix_ == Shape({codes_[0], -1}) || matrix_ == Shape({codes_[0], k}), "the matrix does not fit the codes");
  }

  void compute(const Call& call) override {
    Table table;
    table.packing = packing_;
    Tensor shifts;
    size_t at = 0;
    if (packing_ == nullptr) {
      table.planes.push_back(call.input(at++));
      const Shape& shape = table.planes[0].shape;
      require(shape.size() == 2, "the table is no matrix");
      table.rows = shape[0], table.k = shape[1];
    } else {
      shifts = call.input(at++);
      table.rows = codes_[0], table.k = codes_[1] * codes_[2];
      const int64_t size = elements(codes_);
      for (const int width : packing_->widths()) {
        table.planes.push_back(call.input(at++));
        const bool int4 = table.planes.back().type == ort::INT4;
        require(table.planes.back().size() == (int4 ? size : size * width / 8), "a plane has another length");
      }
      require(shifts.size() == (elements(shifts_) + 7) / 8, "shifts have another length than their blocks");
      ++at;  // turn
    }
    const Tensor scale = call.input(at++);
    require(scale.size() == table.rows, "scale is not one number a row");
    require(scale.type == ort::FLOAT || scale.type == ort::FLOAT16, "scales are neither float nor float16");
    look_up(call, table, call.input(at), [&](int64_t row, const int8_t* numbers, float* y) {
      const float factor = one_float(scale, row) * tensor_scale_;
      if (packing_ == nullptr) {
        for (int64_t j = 0; j < table.k; ++j) y[j] = static_cast<float>(numbers[j]) * factor;
        return;
      }
      const int64_t blocks = codes_[1], block = codes_[2];
      for (int64_t b = 0; b < blocks; ++b) {
        const int by = piece(shifts.as<uint8_t>(), shifts.size(), 1, row * blocks + b);
        for (int64_t j = b * block; j < (b + 1) * block; ++j) {
          y[j] = static_cast<float>(static_cast<int8_t>(static_cast<uint8_t>(numbers[j]) << by)) * factor;
        }
      }
    });
  }

 private:
  float tensor_scale_;
  Shape codes_, shifts_, matrix_;
};

// Rows with a scale a block.
class BlockGatherRows : public Gather {
 public:
  BlockGatherRows(const Info& info, const Packing* packing) : Gather(packing), tensor_scale_(info.real("tensor_scale")), blocks_(info.wholes("blocks")) {
    require(blocks_.size() >= 2, "blocks have no axes");
    row_ = elements({blocks_[blocks_.size() - 2], blocks_.back()});
    require(row_ > 0 && row_ % 8 == 0, "rows are no multiple of 8");
    const Shape count = info.wholes("count"), shifts = info.wholes("shifts");
    require(count.size() == 1 && count[0] > 0, "count is not a number");
    require(shifts.size() == 3 && shifts[2] == 1, "shifts do not fit the rows");
    count_ = count[0], each_ = shifts[1];
    require(each_ == 1 || each_ == blocks_[blocks_.size() - 2], "shifts do not fit the rows");
  }

  void compute(const Call& call) override {
    Table table;
    table.packing = packing_, table.by_rows = true, table.k = row_;
    size_t at = 0;
    for (const int width : packing_->widths()) {
      table.planes.push_back(call.input(at++));
      const Tensor& plane = table.planes.back();
      require(!plane.shape.empty(), "a plane has no rows");
      if (at == 1) table.rows = plane.shape[0];
      require(plane.size() == elements({table.rows, row_ * width / 8}), "a plane has another length than its rows");
    }
    const Tensor shifts = call.input(at++), scale = call.input(at++);
    require(scale.size() == table.rows, "scale is not one number a row");
    require(scale.type == ort::FLOAT || scale.type == ort::FLOAT16, "scales are neither float nor float16");
    // One shift may be all rows'.
    const int64_t count = std::min(count_, shifts.size() * 8);
    const bool shared = each_ == 1 && count == 1;
    require(shared || count == elements({table.rows, each_}), "shifts have another length than their blocks");
    const int64_t blocks = blocks_[blocks_.size() - 2], block = blocks_.back();
    look_up(call, table, call.input(at), [&](int64_t row, const int8_t* numbers, float* y) {
      const float whole = one_float(scale, row) * tensor_scale_;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t place = shared ? 0 : row * each_ + (each_ == 1 ? 0 : b);
        const int by = piece(shifts.as<uint8_t>(), shifts.size(), 1, place);
        const float factor = whole + whole * static_cast<float>(by);
        for (int64_t j = b * block; j < (b + 1) * block; ++j) y[j] = static_cast<float>(numbers[j]) * factor;
      }
    });
  }

 private:
  float tensor_scale_;
  Shape blocks_;
  int64_t row_ = 0, count_ = 0, each_ = 0;
};

// What is looked up has the axes of the indices, and one more: the codes of a plane by the number of rows.
std::vector<Dims> picked(const std::vector<Dims>& in, const Dims& plane, int codes_a_byte, const Dims& by_rows) {
  Dims y = in.back();
  int64_t k = -1;
  const Shape& shape = plane.lengths;
  const bool known = std::all_of(shape.begin(), shape.end(), [](int64_t length) { return length > 0; });
  if (known && !by_rows.lengths.empty() && by_rows.lengths[0] > 0) k = elements(shape) * codes_a_byte / by_rows.lengths[0];
  y.lengths.push_back(k), y.names.emplace_back();
  return {y};
}

}  // namespace

void add_gathers(std::vector<std::unique_ptr<Operator>>& all) {
  const std::vector<int> outputs{ort::FLOAT};
  all.push_back(std::make_unique<Operator>(
      "BlockGather8", std::vector<int>{ort::INT8, ort::ANY, ort::ANY}, outputs,
      [](const Info& info) { return std::make_unique<BlockGather>(info, nullptr); },
      [](const std::vector<Dims>& in) { return picked(in, in[0], 1, in[0]); }));
  for (const Packing& packing : packings()) {
    std::vector<int> inputs{ort::UINT8};
    for (const int type : packing.types()) inputs.push_back(type);
    for (const int type : {ort::FLOAT, ort::ANY, ort::ANY}) inputs.push_back(type);
    all.push_back(std::make_unique<Operator>(
        "BlockGather" + packing.suffix(), inputs, outputs,
        [&packing](const Info& info) { return std::make_unique<BlockGather>(info, &packing); },
        [&packing](const std::vector<Dims>& in) {
          const bool int4 = packing.types()[0] == ort::INT4;
          return picked(in, in[1], int4 ? 1 : 8 / packing.widths()[0], in[in.size() - 2]);
        }));
    if (!packing.lanes && packing.bits >= 4) continue;
    std::vector<int> rows(packing.widths().size(), ort::UINT8);
    for (const int type : {ort::UINT8, ort::ANY, ort::ANY}) rows.push_back(type);
    all.push_back(std::make_unique<Operator>(
        "BlockGatherRows" + std::to_string(packing.bits) + (packing.trellis ? "Trellis" : ""), rows, outputs,
        [&packing](const Info& info) { return std::make_unique<BlockGatherRows>(info, &packing); },
        [&packing](const std::vector<Dims>& in) { return picked(in, in[0], 8 / packing.widths()[0], in[0]); }));
  }
}

}  // namespace bct
