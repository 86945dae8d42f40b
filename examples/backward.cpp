// SPDX-License-Identifier: Apache-2.0
// Training: the forward pass keeps lse, the backward pass reads it and writes dq, dk, dv. Ten steps of gradient descent
// on q, k and v move the output towards a target.
#include <cstdio>
#include <random>
#include <vector>

#include "fattn/fattn.hpp"

namespace {

using Tensor = std::vector<float>;  // [1, 128, 4, 32]

Tensor random_tensor(unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(std::size_t{128} * 4 * 32);
  for (float& value : tensor) value = normal(generator);
  return tensor;
}

// Half the squared distance, and its gradient.
double loss_of(const Tensor& o, const Tensor& target, Tensor& dout) {
  double loss = 0;
  for (std::size_t i = 0; i < o.size(); ++i) {
    dout[i] = o[i] - target[i];
    loss += 0.5 * dout[i] * dout[i];
  }
  return loss;
}

void descend(Tensor& tensor, const Tensor& gradient) {
  for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] -= 0.5F * gradient[i];
}

}  // namespace

int main() try {
  fattn::Problem problem = fattn::parse_problem("fwd hq4 sq128 d32 fp32 causal lse");
  const fattn::Plan forward = fattn::plan(problem, fattn::cpu());
  problem.pass = fattn::Pass::backward;  // lse is an output of the forward pass and an input of this one
  problem.return_lse = false;
  const fattn::Plan backward = fattn::plan(problem, fattn::cpu());
  fattn::HostWorkspace forward_workspace(forward), backward_workspace(backward);

  Tensor q = random_tensor(1), k = random_tensor(2), v = random_tensor(3);
  const Tensor target = random_tensor(4);
  Tensor o(q.size()), dout(q.size()), dq(q.size()), dk(q.size()), dv(q.size());
  std::vector<float> lse(std::size_t{4} * 128);  // [1, 4, 128]
  // Each pass ignores what belongs to the other, so both share one struct.
  const fattn::Buffers buffers = {.q = q.data(),
                                  .k = k.data(),
                                  .v = v.data(),
                                  .o = o.data(),
                                  .lse = lse.data(),
                                  .dout = dout.data(),
                                  .dq = dq.data(),
                                  .dk = dk.data(),
                                  .dv = dv.data()};
  double first = 0, loss = 0;
  for (int step = 0; step <= 10; ++step) {
    fattn::run(forward, buffers, forward_workspace);
    loss = loss_of(o, target, dout);
    if (step == 0) first = loss;
    std::printf("step %d: loss %.1f\n", step, loss);
    fattn::run(backward, buffers, backward_workspace);
    descend(q, dq);
    descend(k, dk);
    descend(v, dv);
  }
  return loss < 0.5 * first ? 0 : 1;
} catch (const fattn::Error& error) {
  std::fprintf(stderr, "%s: %s\n", fattn::to_string(error.status()), error.what());
  return 1;
}
