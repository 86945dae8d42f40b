// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "algebra/mask_band.hpp"
#include "cuda/common/varlen.hpp"
#include "cuda/sm90/tensor_map.hpp"
#include "fattn/fattn.hpp"

// What the plans of the forward and the backward rows share.
namespace fattn::gpu::sm90 {

inline constexpr double kLog2eDouble = 1.4426950408889634;

// A tensor of the problem as the copy engine sees it; packed ones are one batch.
TensorShape shape_of(const Problem& problem, Operand operand);
// The mask of sequences of full length.
Band band_of(const Problem& problem);
VarlenLengths lengths_of(const Problem& problem, const Buffers& buffers);

// Empty, or why a row with tiles of `most` columns does not take the value.
std::string decline_head_dim(const char* name, std::int64_t value, int most);
std::string decline_scale(const Problem& problem);
// The keys that some query sees must be one interval: others are not read, so that NaN in them goes nowhere.
std::string decline_holes(const Problem& problem);

}  // namespace fattn::gpu::sm90
