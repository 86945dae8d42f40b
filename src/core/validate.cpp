// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdlib>

#include "core/extents.hpp"
#include "core/message.hpp"
#include "fattn/problem.hpp"

namespace fattn {
namespace {

using std::int64_t;

constexpr int64_t kMaxExtent = 2147483647;          // batch, heads and totals: they index int32 arrays
constexpr int64_t kMaxLength = 1073741823;          // 2^30 - 1, so that sums of two lengths fit an int
constexpr int64_t kMaxElements = int64_t{1} << 56;  // of one tensor, so that offsets in bytes fit an int64

void require_range(const char* name, int64_t value, int64_t low, int64_t high) {
  require(value >= low && value <= high, "{} = {} must be in [{}, {}]; nearest: {}", name, value, low, high,
          std::clamp(value, low, high));
}

template <class Enum>
void require_enum(const char* name, Enum value, Enum last) {
  require(value <= last, "{} = {} is not a value of its enumeration; nearest: {}", name, static_cast<int>(value),
          static_cast<int>(last));
}

int64_t nearest_divisor(int64_t number, int64_t wish) {
  int64_t best = 1;
  const auto offer = [&](int64_t divisor) {
    if (std::abs(divisor - wish) < std::abs(best - wish)) best = divisor;
  };
  for (int64_t i = 1; i * i <= number; ++i) {
    if (number % i != 0) continue;
    offer(i);
    offer(number / i);
  }
  return best;
}

// A finite fp32 number: kernels compute in fp32.
void require_finite(const char* name, double value) {
  require(std::fabs(value) <= FLT_MAX, "{} = {} must be finite in fp32; nearest: {}", name, value,
          std::isnan(value) ? 1.0 : std::copysign(FLT_MAX, value));
}

bool is_output(const Problem& p, Operand operand) {
  if (operand == Operand::o) return p.pass != Pass::backward;
  if (operand == Operand::k || operand == Operand::v) return p.kv_cache && p.kv_cache->append > 0;
  return operand >= Operand::dq;
}

void require_strides(const Problem& p, Operand operand) {
  const std::string_view name = to_string(operand);
  const Extents shape = extents(p, operand);
  const Strides s = strides(p, operand);
  const std::array<int64_t, 4> extent = {shape.batch, shape.seqlen, shape.heads, shape.dim};
  const std::array<int64_t, 4> stride = {packed(p, operand) ? 0 : s.batch, s.seqlen, s.head, s.dim};
  const bool expanded = operand == Operand::dout && s.dim == 0;

  require(s.dim == 1 || expanded, "strides.{}.dim = {} must be 1{}; nearest: 1", name, s.dim,
          operand == Operand::dout ? " or 0" : "");
  require(s.batch >= 0, "strides.{}.batch = {} must not be negative; nearest: 0", name, s.batch);
  require(s.seqlen >= 0, "strides.{}.seqlen = {} must not be negative; nearest: 0", name, s.seqlen);
  require(s.head >= 0, "strides.{}.head = {} must not be negative; nearest: 0", name, s.head);

  __extension__ using Wide = __int128;
  Wide span = 1;
  for (int i = 0; i < 4; ++i) span += Wide{std::max<int64_t>(extent[i] - 1, 0)} * stride[i];
  require(span <= kMaxElements, "{} spans more than 2^56 elements; nearest: smaller extents or strides", name);
  if (!is_output(p, operand) || shape.empty()) return;

  // From the innermost dimension out, each must step over all that lies inside it.
  static constexpr std::array<const char*, 4> kNames = {"batch", "seqlen", "head", "dim"};
  std::array<int, 4> order = {3, 2, 1, 0};
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return stride[a] < stride[b]; });
  Wide inside = 0;  // the largest offset so far
  for (const int i : order) {
    if (extent[i] <= 1) continue;
    require(Wide{stride[i]} > inside, "strides.{}.{} = {} lets elements of an output overlap; nearest: {}", name,
            kNames[i], stride[i], static_cast<int64_t>(inside + 1));
    inside += Wide{extent[i] - 1} * stride[i];
  }
}

void require_shapes(const Problem& p) {
  require_enum("pass", p.pass, Pass::decode);
  require_enum("dtype", p.dtype, DType::e4m3);
  require_range("batch", p.batch, 1, kMaxExtent);
  require_range("heads_q", p.heads_q, 1, kMaxExtent);
  require_range("heads_kv", p.heads_kv, 1, kMaxExtent);
  if (p.heads_q % p.heads_kv != 0) {  // not by require(), which would look for the divisor every time
    fail(Status::invalid_argument, "heads_kv = {} must divide heads_q = {}; nearest: {}", p.heads_kv, p.heads_q,
         nearest_divisor(p.heads_q, p.heads_kv));
  }
  require_range("seqlen_q", p.seqlen_q, 1, kMaxLength);
  require_range("seqlen_k", p.seqlen_k, 0, kMaxLength);
  require_range("head_dim", p.head_dim, 1, 576);
  require(p.head_dim_v != 0 || p.head_dim <= 512,
          "head_dim_v = head_dim = {} must be in [1, 512]; nearest: head_dim_v = 512", p.head_dim);
  require_range("head_dim_v", p.head_dim_v, 0, 512);
  if (p.total_q) require_range("total_q", *p.total_q, 1, kMaxExtent);
  if (p.total_k) require_range("total_k", *p.total_k, 0, kMaxExtent);

  if (p.out_dtype) {
    const DType out = *p.out_dtype;
    require_enum("out_dtype", out, DType::e4m3);
    const bool sixteen_bit = out == DType::bf16 || out == DType::fp16;
    require(out != DType::e4m3, "out_dtype = e4m3 has no scale to be stored with; nearest: bf16");
    require(out == p.dtype || out == DType::fp32 || out == DType::fp64 || (p.dtype == DType::e4m3 && sixteen_bit),
            "out_dtype = {} does not go with dtype = {}; nearest: {}", to_string(out), to_string(p.dtype),
            to_string(p.dtype));
  }
}

void require_layouts(const Problem& p) {
  for (const Operand operand : kOperands) {
    require(takes_part(p.pass, operand) || !given_strides(p.strides, operand),
            "strides.{} belongs to the backward pass and pass = {}; nearest: unset", to_string(operand),
            to_string(p.pass));
    if (takes_part(p.pass, operand)) require_strides(p, operand);
  }
  const int64_t widest = std::max(size_of(p.dtype), size_of(output_dtype(p)));
  const bool power = p.alignment > 0 && std::has_single_bit(static_cast<std::uint64_t>(p.alignment));
  require(power && p.alignment >= widest && p.alignment <= 4096,
          "alignment = {} must be a power of two in [{}, 4096]; nearest: {}", p.alignment, widest,
          std::clamp<int64_t>(p.alignment > 0 ? int64_t(std::bit_floor(std::uint64_t(p.alignment))) : 0, widest, 4096));
}

void require_mask(const Mask& mask) {
  require(mask.window_left >= -1, "mask.window_left = {} must be at least -1 (unbounded); nearest: -1",
          mask.window_left);
  require(mask.window_right >= -1, "mask.window_right = {} must be at least -1 (unbounded); nearest: -1",
          mask.window_right);
  require(mask.chunk >= 0, "mask.chunk = {} must be at least 0 (none); nearest: 0", mask.chunk);
  const BlockSparse& blocks = mask.block_sparse;
  if (blocks || blocks.block_q != 0 || blocks.block_k != 0 || blocks.per_batch || blocks.per_head) {
    require_range("mask.block_sparse.block_q", blocks.block_q, 1, kMaxLength);
    require_range("mask.block_sparse.block_k", blocks.block_k, 1, kMaxLength);
  }
}

void require_scores(const Problem& p) {
  if (p.softmax_scale) require_finite("softmax_scale", *p.softmax_scale);
  require_finite("score.softcap", p.score.softcap);
  require(p.score.softcap == 0 || p.score.softcap >= FLT_MIN,
          "score.softcap = {} must be 0 (none) or at least the smallest normal fp32; nearest: 0", p.score.softcap);
  require_enum("score.alibi", p.score.alibi, Alibi::per_batch_and_head);
  if (p.score.bias) {
    const Bias& bias = *p.score.bias;
    require(bias.dtype <= DType::fp16, "score.bias.dtype = {} must be fp64, fp32, bf16 or fp16; nearest: fp32",
            to_string(bias.dtype));
    __extension__ using Wide = unsigned __int128;
    Wide elements = bias.batch ? Wide(p.batch) : 1;
    if (bias.heads) elements *= Wide(p.heads_q);
    if (bias.queries) elements *= Wide(p.seqlen_q);
    require(elements * Wide(bias.keys ? p.seqlen_k : 1) <= Wide(kMaxElements),
            "score.bias has more than 2^56 elements; nearest: a broadcast bias");
  }
  require(p.dropout >= 0 && p.dropout < 1, "dropout = {} must be in [0, 1); nearest: {}", p.dropout,
          p.dropout >= 1 ? 0.99999994 : 0.0);

  require_enum("descale.kind", p.descale.kind, DescaleKind::block);
  require(p.descale.kind == DescaleKind::none || p.dtype == DType::e4m3,
          "descale goes with dtype = e4m3 and dtype = {}; nearest: no descale", to_string(p.dtype));
  if (p.descale.kind == DescaleKind::block) {
    require_range("descale.block_q", p.descale.block_q, 1, kMaxLength);
    require_range("descale.block_k", p.descale.block_k, 1, kMaxLength);
  } else {
    require(p.descale.block_q == 0, "descale.block_q = {} needs descale.kind = block; nearest: 0", p.descale.block_q);
    require(p.descale.block_k == 0, "descale.block_k = {} needs descale.kind = block; nearest: 0", p.descale.block_k);
  }
}

void require_outputs(const Problem& p) {
  const bool forward = p.pass == Pass::forward, backward = p.pass == Pass::backward;
  require(forward || !p.return_max_logit, "return_max_logit = true needs pass = forward; nearest: false");
  require(backward || !p.dlse, "dlse = true needs pass = backward; nearest: false");
  require(backward || !p.dbias, "dbias = true needs pass = backward; nearest: false");
  require(backward || !p.dsink, "dsink = true needs pass = backward; nearest: false");
  require(p.score.bias || !p.dbias, "dbias = true needs a bias; nearest: false");
  require(p.sinks || !p.dsink, "dsink = true needs sinks; nearest: false");
}

void require_cache(const Problem& p) {
  if (!p.kv_cache) return;
  const KvCache& cache = *p.kv_cache;
  require(p.pass == Pass::decode, "kv_cache needs pass = decode and pass = {}; nearest: no kv_cache",
          to_string(p.pass));
  require(!p.total_k, "total_k = {} cannot be joined with kv_cache; nearest: unset", p.total_k.value_or(0));
  require_range("kv_cache.page_size", cache.page_size, 0, kMaxLength);
  require_range("kv_cache.pages", cache.pages, cache.page_size > 0 ? 1 : 0, cache.page_size > 0 ? kMaxExtent : 0);
  require_range("kv_cache.append", cache.append, 0, p.seqlen_k);
  require_range("kv_cache.rotary_dim", cache.rotary_dim, 0, p.head_dim / 2 * 2);
  require(cache.rotary_dim % 2 == 0, "kv_cache.rotary_dim = {} must be even; nearest: {}", cache.rotary_dim,
          cache.rotary_dim - 1);
  require(cache.rotary_dim > 0 || !cache.rotary_interleaved,
          "kv_cache.rotary_interleaved = true needs rotary_dim > 0; nearest: false");
}

}  // namespace

void validate(const Problem& problem) {
  require_shapes(problem);
  require_cache(problem);
  require_layouts(problem);
  require_mask(problem.mask);
  require_scores(problem);
  require_outputs(problem);
}

}  // namespace fattn
