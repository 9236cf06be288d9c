// RowAttention and HeadAttention: passes/functions/attention.py.

#include <algorithm>
#include <string>

#include "isa.h"
#include "operator.h"

namespace bct {
namespace {

// Tasks that keep threads busy, and the fewest queries that are worth packing keys for.
constexpr int64_t TASKS = 16, LEAST = 64;
// Queries of a head of keys for which keys and values are read as they lie.
constexpr int64_t FEW = 8;

// How heads lie: [batch, heads, tokens, width] with steps from one to the next.
struct Layout {
  int64_t batch, heads, tokens, width;
  int64_t head_step, token_step;

  int64_t at(int64_t b, int64_t head, int64_t token) const {
    return b * heads * tokens * width + head * head_step + token * token_step;
  }
};

Layout layout(const Shape& shape, int64_t heads) {
  if (heads == 0) {
    require(shape.size() == 4, "heads are not [batch, heads, tokens, width]");
    return {shape[0], shape[1], shape[2], shape[3], shape[2] * shape[3], shape[3]};
  }
  require(shape.size() == 3, "rows are not [batch, tokens, width]");
  require(shape[2] % heads == 0, "the width of rows is no multiple of their heads");
  const int64_t width = shape[2] / heads;
  return {shape[0], heads, shape[1], width, width, shape[2]};
}

// What is added to the scores of a head, [tokens, keys] of each.
struct Mask {
  const float* data = nullptr;
  int64_t batch_step = 0, head_step = 0;
};

Mask mask_of(const Tensor& given, const Layout& q, const Layout& k) {
  Shape shape = given.shape;
  require(shape.size() >= 2 && shape.size() <= 4, "the mask has neither 2 nor 3 nor 4 axes");
  shape.insert(shape.begin(), 4 - shape.size(), 1);
  require(shape[0] == 1 || shape[0] == q.batch, "the mask is of another batch than the query");
  require(shape[1] == 1 || shape[1] == q.heads, "the mask is of another number of heads than the query");
  require(shape[2] == q.tokens, "the mask is of another number of tokens than the query");
  require(shape[3] == k.tokens, "the mask is of another number of tokens than the key");
  const int64_t one = q.tokens * k.tokens;
  return {given.as<float>(), shape[0] == 1 ? 0 : shape[1] * one, shape[1] == 1 ? 0 : one};
}

class Attention : public Kernel {
 public:
  Attention(const Info& info, bool heads_first, bool masked) : masked_(masked), scale_(info.real("scale")) {
    if (heads_first) return;
    heads_ = info.whole("q_num_heads"), shared_heads_ = info.whole("kv_num_heads");
    require(heads_ > 0 && shared_heads_ > 0, "a number of heads is not above zero");
  }

  void compute(const Call& call) override {
    const Tensor q = call.input(0), k = call.input(1), v = call.input(2);
    for (const Tensor* each : {&q, &k, &v}) elements(each->shape);
    const Layout of_q = layout(q.shape, heads_), of_k = layout(k.shape, shared_heads_);
    const Layout of_v = layout(v.shape, shared_heads_);
    require(of_k.batch == of_q.batch && of_v.batch == of_q.batch, "query, key and value are of different batches");
    require(of_k.heads > 0 && of_q.heads % of_k.heads == 0, "heads of the query are no multiple of those of the key");
    require(of_v.heads == of_k.heads, "key and value have different numbers of heads");
    require(of_v.tokens == of_k.tokens, "key and value have different numbers of tokens");
    require(of_k.width == of_q.width, "heads of query and key have different widths");
    require(of_q.width > 0 && of_v.width > 0, "heads have no width");
    require(of_k.tokens > 0, "there are no keys");
    const Mask mask = masked_ ? mask_of(call.input(3), of_q, of_k) : Mask{};

    Shape shape = q.shape;
    shape.back() = heads_ == 0 ? of_v.width : elements({of_q.heads, of_v.width});
    auto* y = call.output<float>(0, shape);
    const Layout of_y = layout(shape, heads_);
    // Queries of heads that share keys are answered together.
    const int64_t sharing = of_q.heads / of_k.heads, queries = sharing * of_q.tokens, units = of_q.batch * of_k.heads;
    if (queries * units == 0) return;
    const int64_t parts = std::max<int64_t>(1, std::min((TASKS + units - 1) / units, queries / LEAST));
    const int64_t part = ((queries + parts - 1) / parts + 31) / 32 * 32;
    const int64_t per_unit = (queries + part - 1) / part;
    call.parallel(static_cast<size_t>(units * per_unit), [&](size_t task) {
      const int64_t unit = static_cast<int64_t>(task) / per_unit, first = static_cast<int64_t>(task) % per_unit * part;
      const int64_t b = unit / of_k.heads, shared = unit % of_k.heads;
      const Keys keys{k.as<float>() + of_k.at(b, shared, 0), of_k.token_step,
                      v.as<float>() + of_v.at(b, shared, 0), of_v.token_step,
                      of_k.tokens, of_k.width, of_v.width, scale_};
      std::vector<Query> asked;
      asked.reserve(static_cast<size_t>(part));
      for (int64_t i = first; i < std::min(queries, first + part); ++i) {
        const int64_t head = shared * sharing + i / of_q.tokens, token = i % of_q.tokens;
        const float* addends = mask.data;
        if (masked_) addends += b * mask.batch_step + head * mask.head_step + token * of_k.tokens;
        asked.push_back({q.as<float>() + of_q.at(b, head, token), addends, y + of_y.at(b, head, token)});
      }
      const auto attend = queries <= FEW ? isa_.attend_few : isa_.attend;
      attend(keys, asked.data(), static_cast<int64_t>(asked.size()));
    });
  }

 private:
  const Isa& isa_ = isa();
  bool masked_;
  float scale_;
  int64_t heads_ = 0, shared_heads_ = 0;  // 0 where heads come first
};

bool same(const Dims& a, const Dims& b) {
  return a.lengths.back() == b.lengths.back() && (a.lengths.back() >= 0 || a.names.back() == b.names.back());
}

}  // namespace

void add_attentions(std::vector<std::unique_ptr<Operator>>& all) {
  for (const bool heads_first : {false, true}) {
    for (const bool masked : {false, true}) {
      all.push_back(std::make_unique<Operator>(
          std::string(heads_first ? "HeadAttention" : "RowAttention") + (masked ? "Masked" : ""),
          std::vector<int>(masked ? 4 : 3, ort::FLOAT), std::vector<int>{ort::FLOAT},
          [heads_first, masked](const Info& info) { return std::make_unique<Attention>(info, heads_first, masked); },
          [heads_first](const std::vector<Dims>& in) {
            const size_t rank = heads_first ? 4 : 3;
            for (size_t i = 0; i < 3; ++i) {
              if (in[i].lengths.size() != rank) return std::vector<Dims>{};
            }
            // Rows as wide as the keys' have as many heads, too.
            const bool known = heads_first || same(in[0], in[1]);
            Dims y = in[0];
            y.lengths.back() = known ? in[2].lengths.back() : -1;
            y.names.back() = known ? in[2].names.back() : "";
            return std::vector<Dims>{y};
          }));
    }
  }
}

}  // namespace bct
