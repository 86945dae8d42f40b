// SPDX-License-Identifier: Apache-2.0
// The example of README.md, on random data, held to a plain evaluation of the definition.
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "fattn/fattn.hpp"

namespace {

constexpr int kHeadsQ = 8, kHeadsKv = 2, kSeqlen = 1024, kHeadDim = 64;

std::vector<float> random_tensor(int heads, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> tensor(std::size_t{kSeqlen} * heads * kHeadDim);
  for (float& value : tensor) value = normal(generator);
  return tensor;
}

double largest_error(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v,
                     const std::vector<float>& o) {
  const auto row = [](const std::vector<float>& tensor, int heads, int position, int head) {
    return tensor.data() + (std::size_t{1} * position * heads + head) * kHeadDim;
  };
  double largest = 0;
  for (int query = 0; query < kSeqlen; query += 31) {
    for (int head = 0; head < kHeadsQ; ++head) {
      const int head_kv = head / (kHeadsQ / kHeadsKv);
      std::vector<double> sum(kHeadDim);
      double denominator = 0;
      for (int key = 0; key <= query; ++key) {
        double score = 0;
        for (int d = 0; d < kHeadDim; ++d)
          score += double{row(q, kHeadsQ, query, head)[d]} * row(k, kHeadsKv, key, head_kv)[d];
        const double weight = std::exp(score / std::sqrt(double{kHeadDim}));
        denominator += weight;
        for (int d = 0; d < kHeadDim; ++d) sum[d] += weight * row(v, kHeadsKv, key, head_kv)[d];
      }
      for (int d = 0; d < kHeadDim; ++d)
        largest = std::fmax(largest, std::fabs(sum[d] / denominator - row(o, kHeadsQ, query, head)[d]));
    }
  }
  return largest;
}

}  // namespace

int main() {
  const std::vector<float> q_data = random_tensor(kHeadsQ, 1), k_data = random_tensor(kHeadsKv, 2),
                           v_data = random_tensor(kHeadsKv, 3);
  std::vector<float> o_data(q_data.size(), NAN);
  const float *q = q_data.data(), *k = k_data.data(), *v = v_data.data();
  float* o = o_data.data();

#include "readme_cpp.inc"

  const double error = largest_error(q_data, k_data, v_data, o_data);
  const fattn::Version version = fattn::version();
  std::printf("fattn %d.%d.%d: largest error %g\n", version.major, version.minor, version.patch, error);
  if (!(error < 1e-5)) return 1;

  // An exception crosses the library's border as the type that its header declares.
  try {
    fattn::parse_problem("fwd b0");
    return 1;
  } catch (const fattn::Error& refusal) {
    return refusal.status() == fattn::Status::invalid_argument ? 0 : 1;
  }
}
