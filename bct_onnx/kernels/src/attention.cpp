// RowAttention, HeadAttention and SplitRowAttention: passes/functions/attention.py and split_attention.py.

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
  int64_t batch_step, head_step, token_step;

  int64_t at(int64_t b, int64_t head, int64_t token) const {
    return b * batch_step + head * head_step + token * token_step;
  }
};

// Heads, and where they lie.
struct Part {
  Layout layout;
  const float* data;
  const float* bias = nullptr;  // [heads * width], or none

  const float* at(int64_t b, int64_t head, int64_t token) const { return data + layout.at(b, head, token); }
  const float* bias_of(int64_t head) const { return bias == nullptr ? nullptr : bias + head * layout.width; }
};

Layout layout(const Shape& shape, int64_t heads) {
  if (heads == 0) {
    require(shape.size() == 4, "heads are not [batch, heads, tokens, width]");
    const int64_t head = elements({shape[2], shape[3]});
    return {shape[0], shape[1], shape[2], shape[3], elements({shape[1], head}), head, shape[3]};
  }
  require(shape.size() == 3, "rows are not [batch, tokens, width]");
  require(shape[2] % heads == 0, "the width of rows is no multiple of their heads");
  const int64_t width = shape[2] / heads;
  return {shape[0], heads, shape[1], width, elements({shape[1], shape[2]}), width, shape[2]};
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

// What one call is given.
struct Given {
  Part q, k, v;
};

// Query, keys and values of an input each.
Given apart(const Call& call, int64_t heads, int64_t shared_heads) {
  auto part = [&](size_t index, int64_t of) {
    const Tensor found = call.input(index);
    elements(found.shape);
    return Part{layout(found.shape, of), found.as<float>()};
  };
  return {part(0, heads), part(1, shared_heads), part(2, shared_heads)};
}

// Which of the three have a bias, in a name and in an order of inputs.
struct Biases {
  const char* name;
  bool q, v;
};
constexpr Biases BIASES[] = {{"", false, false}, {"BiasQ", true, false}, {"BiasV", false, true}, {"BiasQV", true, true}};

// The three side by side in one input, rows of `sizes` each; biases are the inputs behind it.
Given together(const Call& call, const Shape& sizes, const Biases& biases, int64_t heads, int64_t shared_heads) {
  const Tensor all = call.input(0);
  elements(all.shape);
  require(all.shape.size() == 3, "rows are not [batch, tokens, width]");
  int64_t left = all.shape[2];
  for (const int64_t size : sizes) {
    require(size >= 0 && size <= left, "sizes are not those of the parts of a row");
    left -= size;
  }
  require(sizes.size() == 3 && left == 0, "sizes are not those of the parts of a row");
  int64_t first = 0;
  size_t input = 1;
  auto part = [&](size_t index, int64_t of, bool biased) {
    Part found{layout({all.shape[0], all.shape[1], sizes[index]}, of), all.as<float>() + first};
    found.layout.token_step = all.shape[2], found.layout.batch_step = all.shape[1] * all.shape[2];
    first += sizes[index];
    if (!biased) return found;
    const Tensor bias = call.input(input++);
    require(bias.size() == sizes[index] && !bias.shape.empty() && bias.shape.back() == sizes[index],
            "a bias is not one number a column");
    found.bias = bias.as<float>();
    return found;
  };
  const Part q = part(0, heads, biases.q), k = part(1, shared_heads, false), v = part(2, shared_heads, biases.v);
  return {q, k, v};
}

class Attention : public Kernel {
 public:
  // Heads come first, or rows of them, or, with `biases`, rows of all three.
  Attention(const Info& info, bool heads_first, const Biases* biases, bool masked)
      : biases_(biases), masked_(masked), scale_(info.real("scale")) {
    if (heads_first) return;
    heads_ = info.whole("q_num_heads"), shared_heads_ = info.whole("kv_num_heads");
    require(heads_ > 0 && shared_heads_ > 0, "a number of heads is not above zero");
    if (biases != nullptr) sizes_ = info.wholes("sizes");
  }

  void compute(const Call& call) override {
    const Given given = biases_ == nullptr ? apart(call, heads_, shared_heads_)
                                           : together(call, sizes_, *biases_, heads_, shared_heads_);
    const Part &q = given.q, &k = given.k, &v = given.v;
    const Layout &of_q = q.layout, &of_k = k.layout, &of_v = v.layout;
    require(of_k.batch == of_q.batch && of_v.batch == of_q.batch, "query, key and value are of different batches");
    require(of_k.heads > 0 && of_q.heads % of_k.heads == 0, "heads of the query are no multiple of those of the key");
    require(of_v.heads == of_k.heads, "key and value have different numbers of heads");
    require(of_v.tokens == of_k.tokens, "key and value have different numbers of tokens");
    require(of_k.width == of_q.width, "heads of query and key have different widths");
    require(of_q.width > 0 && of_v.width > 0, "heads have no width");
    require(of_k.tokens > 0, "there are no keys");
    const Mask mask = masked_ ? mask_of(call.input(mask_input()), of_q, of_k) : Mask{};

    Shape shape{of_q.batch, of_q.tokens, elements({of_q.heads, of_v.width})};
    if (heads_ == 0) shape = {of_q.batch, of_q.heads, of_q.tokens, of_v.width};
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
      const Keys keys{k.at(b, shared, 0), of_k.token_step, v.at(b, shared, 0), of_v.token_step,
                      of_k.tokens, of_k.width, of_v.width, scale_, v.bias_of(shared)};
      std::vector<Query> asked;
      asked.reserve(static_cast<size_t>(part));
      for (int64_t i = first; i < std::min(queries, first + part); ++i) {
        const int64_t head = shared * sharing + i / of_q.tokens, token = i % of_q.tokens;
        const float* addends = mask.data;
        if (masked_) addends += b * mask.batch_step + head * mask.head_step + token * of_k.tokens;
        asked.push_back({q.at(b, head, token), q.bias_of(head), addends, y + of_y.at(b, head, token)});
      }
      const auto attend = queries <= FEW ? isa_.attend_few : isa_.attend;
      attend(keys, asked.data(), static_cast<int64_t>(asked.size()));
    });
  }

 private:
  size_t mask_input() const {
    if (biases_ == nullptr) return 3;
    return 1 + static_cast<size_t>(biases_->q) + static_cast<size_t>(biases_->v);
  }

  const Isa& isa_ = isa();
  const Biases* biases_;
  bool masked_;
  float scale_;
  int64_t heads_ = 0, shared_heads_ = 0;  // 0 where heads come first
  Shape sizes_;
};

bool same(const Dims& a, const Dims& b) {
  return a.lengths.back() == b.lengths.back() && (a.lengths.back() >= 0 || a.names.back() == b.names.back());
}

using Operators = std::vector<std::unique_ptr<Operator>>;

// Attention with an input each for query, keys and values.
void add_apart(Operators& all, bool heads_first, bool masked) {
  all.push_back(std::make_unique<Operator>(
      std::string(heads_first ? "HeadAttention" : "RowAttention") + (masked ? "Masked" : ""),
      std::vector<int>(masked ? 4 : 3, ort::FLOAT), std::vector<int>{ort::FLOAT},
      [=](const Info& info) { return std::make_unique<Attention>(info, heads_first, nullptr, masked); },
      [=](const std::vector<Dims>& in) {
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

void add_together(Operators& all, const Biases& biases, bool masked) {
  const size_t inputs = 1 + static_cast<size_t>(biases.q) + static_cast<size_t>(biases.v) + static_cast<size_t>(masked);
  all.push_back(std::make_unique<Operator>(
      std::string("SplitRowAttention") + biases.name + (masked ? "Masked" : ""), std::vector<int>(inputs, ort::FLOAT),
      std::vector<int>{ort::FLOAT},
      [&biases, masked](const Info& info) { return std::make_unique<Attention>(info, false, &biases, masked); },
      [](const std::vector<Dims>& in) {
        if (in[0].lengths.size() != 3) return std::vector<Dims>{};
        // How wide the values of all heads are is known to the node alone.
        Dims y = in[0];
        y.lengths.back() = -1, y.names.back().clear();
        return std::vector<Dims>{y};
      }));
}

}  // namespace

void add_attentions(Operators& all) {
  for (const bool masked : {false, true}) {
    for (const bool heads_first : {false, true}) add_apart(all, heads_first, masked);
    for (const Biases& biases : BIASES) add_together(all, biases, masked);
  }
}

}  // namespace bct
