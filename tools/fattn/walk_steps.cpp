// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "algebra/mask_band.hpp"
#include "algebra/scores.hpp"
#include "algebra/softmax_state.hpp"
#include "core/lower.hpp"
#include "verify/oracle.hpp"
#include "walk.hpp"

namespace fattn::tool {

namespace {

using std::int64_t;
using State = SoftmaxState<double>;

constexpr int64_t kMostRows = 64;

double exp_of(double x) { return std::exp(x); }

// A small matrix of doubles.
struct Matrix {
  Matrix(int row_count, int column_count, double value = 0)
      : rows(row_count),
        columns(column_count),
        values(static_cast<std::size_t>(row_count) * static_cast<std::size_t>(column_count), value) {}
  double& at(int row, int column) { return values[offset(row, column)]; }
  double at(int row, int column) const { return values[offset(row, column)]; }
  std::size_t offset(int row, int column) const {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) + static_cast<std::size_t>(column);
  }

  int rows, columns;
  std::vector<double> values;
};

double dot(const Matrix& a, int row_a, const Matrix& b, int row_b) {
  double sum = 0;
  for (int c = 0; c < a.columns; ++c) sum += a.at(row_a, c) * b.at(row_b, c);
  return sum;
}

// to[row] += factor * from[other]
void add(Matrix& to, int row, double factor, const Matrix& from, int other) {
  for (int c = 0; c < to.columns; ++c) to.at(row, c) += factor * from.at(other, c);
}

Json rows_json(const Matrix& matrix, int begin, int end) {
  Json all = Json::array();
  for (int row = begin; row < end; ++row) {
    Json one = Json::array();
    for (int c = 0; c < matrix.columns; ++c) one.push_back(matrix.at(row, c));
    all.push_back(std::move(one));
  }
  return all;
}

template <class Value>
Json column(int begin, int end, Value value) {
  Json all = Json::array();
  for (int i = begin; i < end; ++i) all.push_back(value(i));
  return all;
}

void require_small(const Problem& p, int64_t head, WalkTile tile) {
  const auto limit = [](const char* name, int64_t value) {
    if (value < 1 || value > kMostRows) {
      refuse(fmt::format("{} = {}: a walk prints every number; nearest: {}", name, value,
                         std::clamp<int64_t>(value, 1, kMostRows)));
    }
  };
  limit("seqlen_q", p.seqlen_q);
  limit("seqlen_k", p.seqlen_k);
  limit("--tile rows", tile.queries);
  limit("--tile columns", tile.keys);
  if (head < 0 || head >= p.heads_q) {
    refuse(fmt::format("--head = {}: there are {}; nearest: {}", head, p.heads_q,
                       std::clamp<int64_t>(head, 0, p.heads_q - 1)));
  }
  const auto without = [](bool given, const char* what) {
    if (given) refuse(fmt::format("{}: a walk does not show it; nearest: the same problem without", what));
  };
  without(p.pass == Pass::decode, "decode");
  without(p.total_q || p.total_k, "packed sequences");
  without(p.seqused_q || p.seqused_k, "seqused");
  without(!is_band(p.mask), "a mask that is read from data");
  without(p.dropout > 0, "dropout");
  without(p.score.bias.has_value(), "bias");
  without(p.descale.kind != DescaleKind::none, "descale");
  without(p.dlse, "dlse");
}

// A NaN stays.
void raise(double& worst, double value) {
  if (!(value <= worst)) worst = value;
}

// What every step reads: one head of the first sequence.
class Walk {
 public:
  Walk(const verify::CaseData& data, int64_t head, WalkTile tile)
      : problem_(data.problem()),
        tile_(tile),
        band_(Band::of(lower_band(problem_.mask), static_cast<int>(problem_.seqlen_q),
                       static_cast<int>(problem_.seqlen_k))),
        score_{softmax_scale(problem_), problem_.score.softcap},
        head_(head),
        head_kv_(head / (problem_.heads_q / problem_.heads_kv)),
        q_(matrix(data.tensor("q"), head_)),
        k_(matrix(data.tensor("k"), head_kv_)),
        v_(matrix(data.tensor("v"), head_kv_)),
        dout_(matrix(data.tensor("dout"), head_)),
        o_(q_.rows, v_.columns),
        dq_(q_.rows, q_.columns),
        dk_(k_.rows, k_.columns),
        dv_(v_.rows, v_.columns) {
    if (problem_.score.alibi != Alibi::none) slope_ = first_row(data.tensor("alibi_slopes"))[index(head_)];
    if (problem_.sinks) sink_ = first_row(data.tensor("sinks"))[index(head_)];
  }

  Json forward() {
    Json tiles = Json::array();
    for (int begin = 0; begin < q_.rows; begin += tile_.queries) {
      tiles.push_back(forward_of(begin, std::min(begin + tile_.queries, q_.rows)));
    }
    return tiles;
  }

  // The keys in two parts, each by itself, as if by two workers.
  Json merged() const {
    const int tiles = (k_.rows + tile_.keys - 1) / tile_.keys, cut = (tiles + 1) / 2 * tile_.keys;
    if (tiles < 2) return nullptr;
    Json rows = Json::array();
    double difference = 0;
    for (int i = 0; i < q_.rows; ++i) {
      Matrix a(1, v_.columns), b = a;
      const State left = part(i, 0, cut, a), right = part(i, cut, k_.rows, b);
      State both = left;
      const MergeFactors<double> factor = merge(both, right, exp_of);
      const double keep = sink_ ? merge(both, State{*sink_, 1}, exp_of).a : 1;
      for (int c = 0; c < o_.columns; ++c) {
        const double o = both.sum > 0 ? keep * (factor.a * a.at(0, c) + factor.b * b.at(0, c)) / both.sum : 0;
        raise(difference, std::fabs(o - o_.at(i, c)));
      }
      rows.push_back({{"max", {left.max, right.max}},
                      {"sum", {left.sum, right.sum}},
                      {"factor", {factor.a, factor.b}},
                      {"merged_max", both.max},
                      {"merged_sum", both.sum}});
    }
    return {{"cut", cut}, {"rows", rows}, {"difference", difference}};
  }

  Json backward() {
    std::vector<double> delta(index(q_.rows));
    for (int i = 0; i < q_.rows; ++i) delta[index(i)] = dot(dout_, i, o_, i);
    Json tiles = Json::array();
    for (int begin = 0; begin < k_.rows; begin += tile_.keys) {
      tiles.push_back(backward_of(begin, std::min(begin + tile_.keys, k_.rows), delta));
    }
    return {{"delta", delta}, {"tiles", tiles}, {"dq", rows_json(dq_, 0, dq_.rows)}};
  }

  // Largest differences from the oracle's results.
  Json errors(const verify::CaseOutputs& forward, const verify::CaseOutputs& backward) const {
    Json errors;
    errors["o"] = distance(o_, forward.tensor("o"), head_);
    const verify::Tensor& lse = forward.tensor("lse");
    const std::vector<double> values = lse.values();
    double worst = 0;
    for (int i = 0; i < q_.rows; ++i) {
      const double exact = values[index(head_ * problem_.seqlen_q + i)], mine = lse_[index(i)];
      if (exact != mine) raise(worst, std::fabs(exact - mine));
    }
    errors["lse"] = worst;
    errors["dq"] = distance(dq_, backward.tensor("dq"), head_);
    // Of the key head's gradients this is one query head's share, all of it where there is one.
    if (problem_.heads_q == problem_.heads_kv) {
      errors["dk"] = distance(dk_, backward.tensor("dk"), head_kv_);
      errors["dv"] = distance(dv_, backward.tensor("dv"), head_kv_);
    }
    return errors;
  }

 private:
  static std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

  static Matrix matrix(const verify::Tensor& tensor, int64_t head) {
    const verify::Index4& e = tensor.extents();
    Matrix result(static_cast<int>(e[1]), static_cast<int>(e[3]));
    for (int row = 0; row < result.rows; ++row) {
      tensor.get_row(row * e[2] + head, &result.values[index(int64_t{row} * e[3])]);
    }
    return result;
  }
  static std::vector<double> first_row(const verify::Tensor& tensor) {
    std::vector<double> row(static_cast<std::size_t>(tensor.row_elements()));
    tensor.get_row(0, row.data());
    return row;
  }
  static double distance(const Matrix& mine, const verify::Tensor& exact, int64_t head) {
    const Matrix other = matrix(exact, head);
    double worst = 0;
    for (std::size_t i = 0; i < mine.values.size(); ++i) {
      raise(worst, std::fabs(mine.values[i] - other.values[i]));
    }
    return worst;
  }

  // The score of a visible pair (docs/numerics.md, "Scores"), and after step 2.
  double capped(int i, int j) const {
    return score_.capped(dot(q_, i, k_, j), [](double x) { return std::tanh(x); });
  }
  double score(int i, int j) const { return capped(i, j) + alibi(slope_, band_.diagonal(i), j); }

  bool any_pair(int begin, int end, int key_begin, int key_end) const {
    for (int i = begin; i < end; ++i) {
      const Interval keys = band_.visible(i);
      if (std::max(keys.begin, key_begin) < std::min(keys.end, key_end)) return true;
    }
    return false;
  }

  // Row i over the keys [begin, end): its state, and o before it is divided.
  State part(int i, int begin, int end, Matrix& o) const {
    State state = State::empty();
    for (int j = begin; j < end; ++j) {
      if (band_.keep(i, j)) state.max = std::max(state.max, score(i, j));
    }
    for (int j = begin; j < end; ++j) {
      if (!band_.keep(i, j)) continue;
      const double weight = std::exp(score(i, j) - state.max);
      state.sum += weight;
      add(o, 0, weight, v_, j);
    }
    return state;
  }

  Json forward_of(int begin, int end) {
    std::vector<State> states(index(q_.rows), State::empty());
    Json steps = Json::array();
    for (int key = 0; key < k_.rows; key += tile_.keys) {
      const int key_end = std::min(key + tile_.keys, k_.rows);
      Json step = {{"keys", {key, key_end}}, {"skipped", !any_pair(begin, end, key, key_end)}};
      if (!step["skipped"].get<bool>()) forward_step(begin, end, key, key_end, states, step);
      steps.push_back(std::move(step));
    }
    Json tile = {{"queries", {begin, end}}, {"steps", steps}};
    if (sink_) tile["sink"] = *sink_;
    for (int i = begin; i < end; ++i) {
      State& state = states[index(i)];
      // A sink is one more key, whose value is 0.
      const double keep = sink_ ? merge(state, State{*sink_, 1}, exp_of).a : 1;
      for (int c = 0; c < o_.columns; ++c) o_.at(i, c) = state.sum > 0 ? keep * o_.at(i, c) / state.sum : 0;
      lse_.push_back(state.sum > 0 ? state.max + std::log(state.sum) : -INFINITY);
    }
    tile["lse"] = column(begin, end, [&](int i) { return lse_[index(i)]; });
    tile["o"] = rows_json(o_, begin, end);
    return tile;
  }

  void forward_step(int begin, int end, int key, int key_end, std::vector<State>& states, Json& step) {
    Matrix s(end - begin, key_end - key, -INFINITY), p(end - begin, key_end - key);
    std::vector<double> tile_max, before, after, rescale, tile_sum, sums;
    for (int i = begin; i < end; ++i) {
      State& state = states[index(i)];
      double top = -INFINITY;
      for (int j = key; j < key_end; ++j) {
        if (!band_.keep(i, j)) continue;
        s.at(i - begin, j - key) = score(i, j);
        top = std::max(top, s.at(i - begin, j - key));
      }
      tile_max.push_back(top);
      before.push_back(state.max);
      // The weights of the tile with the new maximum as their reference; then the old state is brought to it.
      const double now = std::max(state.max, top);
      State tile{top == -INFINITY ? top : now, 0};
      for (int j = key; j < key_end; ++j) {
        if (band_.keep(i, j)) p.at(i - begin, j - key) = std::exp(s.at(i - begin, j - key) - now);
        tile.sum += p.at(i - begin, j - key);
      }
      tile_sum.push_back(tile.sum);
      const double factor = merge(state, tile, exp_of).a;
      rescale.push_back(factor);
      after.push_back(state.max);
      sums.push_back(state.sum);
      for (int c = 0; c < o_.columns; ++c) o_.at(i, c) *= factor;
      for (int j = key; j < key_end; ++j) {
        if (band_.keep(i, j)) add(o_, i, p.at(i - begin, j - key), v_, j);
      }
    }
    step["s"] = rows_json(s, 0, s.rows);
    step["p"] = rows_json(p, 0, p.rows);
    step["tile_max"] = tile_max;
    step["max_before"] = before;
    step["max"] = after;
    step["rescale"] = rescale;
    step["tile_sum"] = tile_sum;
    step["sum"] = sums;
    step["o"] = rows_json(o_, begin, end);
  }

  Json backward_of(int key, int key_end, const std::vector<double>& delta) {
    Json steps = Json::array();
    for (int begin = 0; begin < q_.rows; begin += tile_.queries) {
      const int end = std::min(begin + tile_.queries, q_.rows);
      Json step = {{"queries", {begin, end}}, {"skipped", !any_pair(begin, end, key, key_end)}};
      if (!step["skipped"].get<bool>()) backward_step(begin, end, key, key_end, delta, step);
      steps.push_back(std::move(step));
    }
    return {{"keys", {key, key_end}},
            {"steps", steps},
            {"dk", rows_json(dk_, key, key_end)},
            {"dv", rows_json(dv_, key, key_end)}};
  }

  void backward_step(int begin, int end, int key, int key_end, const std::vector<double>& delta, Json& step) {
    Matrix p(end - begin, key_end - key), dp = p, ds = p;
    for (int i = begin; i < end; ++i) {
      for (int j = key; j < key_end; ++j) {
        if (!band_.keep(i, j)) continue;
        double& weight = p.at(i - begin, j - key);
        weight = std::exp(score(i, j) - lse_[index(i)]);
        dp.at(i - begin, j - key) = dot(dout_, i, v_, j);
        const double gradient = weight * (dp.at(i - begin, j - key) - delta[index(i)]);
        ds.at(i - begin, j - key) = gradient;
        const double of_product = gradient * score_.derivative(capped(i, j));  // of q.k: the scale is in it
        add(dv_, j, weight, dout_, i);
        add(dk_, j, of_product, q_, i);
        add(dq_, i, of_product, k_, j);
      }
    }
    step["p"] = rows_json(p, 0, p.rows);
    step["dp"] = rows_json(dp, 0, dp.rows);
    step["ds"] = rows_json(ds, 0, ds.rows);
    step["dq"] = rows_json(dq_, begin, end);
  }

  const Problem problem_;
  const WalkTile tile_;
  const Band band_;
  const ModifiedScore<double> score_;
  const int64_t head_, head_kv_;
  const Matrix q_, k_, v_, dout_;
  double slope_ = 0;
  std::optional<double> sink_;
  Matrix o_, dq_, dk_, dv_;
  std::vector<double> lse_;
};

}  // namespace

Json walk(const Problem& problem, int64_t head, WalkTile tile, std::uint64_t seed) {
  require_small(problem, head, tile);
  verify::DataOptions options;
  options.seed = seed;
  Problem forward = problem, backward = problem;
  forward.pass = Pass::forward, backward.pass = Pass::backward;
  forward.return_lse = true, backward.return_lse = forward.return_max_logit = backward.return_max_logit = false;
  forward.dsink = backward.dsink = false;
  forward.out_dtype = backward.out_dtype = DType::fp64;
  forward.strides = backward.strides = {};
  forward.alignment = backward.alignment = 16;
  const verify::CaseData forward_data(forward, cpu(1), options);
  verify::CaseData data(backward, cpu(1), options);
  Walk walk(data, head, tile);
  Json steps = {{"problem", to_string(problem)},     {"head", head},
                {"tile", {tile.queries, tile.keys}}, {"seed", seed},
                {"scale", softmax_scale(problem)},   {"head_dim", problem.head_dim},
                {"forward", walk.forward()}};
  steps["merge"] = walk.merged();
  steps["backward"] = walk.backward();
  verify::add_forward(data);
  steps["errors"] = walk.errors(verify::oracle(forward_data), verify::oracle(data));
  return steps;
}

}  // namespace fattn::tool
