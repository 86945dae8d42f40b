// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "verify/case_data.hpp"
#include "verify/compare.hpp"

namespace fattn::verify {

// Gives a backward what the forward would have left: o and lse, exact and then rounded to what is stored.
void add_forward(CaseData& data);

// fp64 results of the oracle on the data: o, lse, max_logit, or the gradients. Large problems of a CUDA device whose
// data are placed are computed there, all others on the host.
CaseOutputs oracle(const CaseData& data);

// The same-precision naive results, on the host.
CaseOutputs naive(const CaseData& data);

// The naive's distances from the oracle's results for these data, one an output: of small problems the largest of
// several draws, of very large ones those of a few heads.
std::vector<Distance> yardstick(const CaseData& data, const CaseOutputs& exact);

// The magnitude of what each output adds up, see Bound.
std::vector<Magnitude> magnitudes(const CaseData& data, const CaseOutputs& exact);

}  // namespace fattn::verify
