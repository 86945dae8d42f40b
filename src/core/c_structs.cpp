// SPDX-License-Identifier: Apache-2.0
#include "core/c_structs.hpp"

#include "core/extents.hpp"

namespace fattn {
namespace {

// The two directions of each field of a struct.
struct FromC {
  static void flag(const char* name, const int32_t& c, bool& p) {
    require(c == 0 || c == 1, "{} = {} must be 0 or 1; nearest: 1", name, c);
    p = c != 0;
  }
  template <class Enum>
  static void choice(const char* name, const int32_t& c, Enum& p) {
    require(c >= 0 && c <= 255, "{} = {} is not a value of its enumeration; nearest: 0", name, c);
    p = static_cast<Enum>(c);  // validate() knows the last one
  }
  template <class C, class P>
  static void value(const C& c, P& p) {
    p = static_cast<P>(c);
  }
};
struct ToC {
  static void flag(const char*, int32_t& c, const bool& p) { c = p ? 1 : 0; }
  template <class Enum>
  static void choice(const char*, int32_t& c, const Enum& p) {
    c = static_cast<int32_t>(p);
  }
  template <class C, class P>
  static void value(C& c, const P& p) {
    c = static_cast<C>(p);
  }
};

// The fields of fattn_problem that are always there.
template <class Copy, class C, class P>
void copy_fields(Copy copy, C& c, P& p) {
  copy.choice("pass", c.pass, p.pass);
  copy.choice("dtype", c.dtype, p.dtype);
  copy.value(c.batch, p.batch);
  copy.value(c.heads_q, p.heads_q);
  copy.value(c.heads_kv, p.heads_kv);
  copy.value(c.seqlen_q, p.seqlen_q);
  copy.value(c.seqlen_k, p.seqlen_k);
  copy.value(c.head_dim, p.head_dim);
  copy.value(c.head_dim_v, p.head_dim_v);
  copy.flag("seqused_q", c.seqused_q, p.seqused_q);
  copy.flag("seqused_k", c.seqused_k, p.seqused_k);
  copy.value(c.alignment, p.alignment);
  copy.flag("causal", c.causal, p.mask.causal);
  copy.flag("causal_top_left", c.causal_top_left, p.mask.causal_top_left);
  copy.value(c.window_left, p.mask.window_left);
  copy.value(c.window_right, p.mask.window_right);
  copy.value(c.chunk, p.mask.chunk);
  copy.flag("documents", c.documents, p.mask.documents);
  copy.flag("prefix", c.prefix, p.mask.prefix);
  copy.value(c.sparse_block_q, p.mask.block_sparse.block_q);
  copy.value(c.sparse_block_k, p.mask.block_sparse.block_k);
  copy.flag("sparse_per_batch", c.sparse_per_batch, p.mask.block_sparse.per_batch);
  copy.flag("sparse_per_head", c.sparse_per_head, p.mask.block_sparse.per_head);
  copy.value(c.softcap, p.score.softcap);
  copy.choice("alibi", c.alibi, p.score.alibi);
  copy.flag("sinks", c.sinks, p.sinks);
  copy.value(c.dropout, p.dropout);
  copy.choice("descale_kind", c.descale_kind, p.descale.kind);
  copy.value(c.descale_block_q, p.descale.block_q);
  copy.value(c.descale_block_k, p.descale.block_k);
  copy.flag("return_lse", c.return_lse, p.return_lse);
  copy.flag("return_max_logit", c.return_max_logit, p.return_max_logit);
  copy.flag("dlse", c.dlse, p.dlse);
  copy.flag("dbias", c.dbias, p.dbias);
  copy.flag("dsink", c.dsink, p.dsink);
  copy.flag("deterministic", c.deterministic, p.deterministic);
  copy.flag("batch_invariant", c.batch_invariant, p.batch_invariant);
}

template <class Copy, class C, class P>
void copy_bias(Copy copy, C& c, P& bias) {
  copy.flag("bias_batch", c.bias_batch, bias.batch);
  copy.flag("bias_heads", c.bias_heads, bias.heads);
  copy.flag("bias_queries", c.bias_queries, bias.queries);
  copy.flag("bias_keys", c.bias_keys, bias.keys);
  copy.choice("bias_dtype", c.bias_dtype, bias.dtype);
}

template <class Copy, class C, class P>
void copy_cache(Copy copy, C& c, P& cache) {
  copy.value(c.page_size, cache.page_size);
  copy.value(c.pages, cache.pages);
  copy.value(c.append, cache.append);
  copy.flag("leftpad", c.leftpad, cache.leftpad);
  copy.value(c.rotary_dim, cache.rotary_dim);
  copy.flag("rotary_interleaved", c.rotary_interleaved, cache.rotary_interleaved);
}

template <class Copy, class C, class P>
void copy_strides(Copy copy, C& c, P& strides) {
  copy.value(c.batch, strides.batch);
  copy.value(c.seqlen, strides.seqlen);
  copy.value(c.head, strides.head);
  copy.value(c.dim, strides.dim);
}

template <class Copy, class C, class P>
void copy_device(Copy copy, C& c, P& device) {
  copy.choice("kind", c.kind, device.kind);
  copy.value(c.index, device.index);
  copy.value(c.compute_capability, device.compute_capability);
  copy.value(c.sm_count, device.sm_count);
  copy.value(c.shared_memory_per_block, device.shared_memory_per_block);
  copy.value(c.l2_bytes, device.l2_bytes);
  copy.value(c.memory_bytes, device.memory_bytes);
  copy.value(c.threads, device.threads);
  copy.flag("avx2", c.avx2, device.avx2);
  copy.flag("avx512", c.avx512, device.avx512);
  copy.flag("amx_bf16", c.amx_bf16, device.amx_bf16);
  copy.value(c.peak_16bit_tflops, device.peak_16bit_tflops);
  copy.value(c.memory_gb_per_second, device.memory_gb_per_second);
  copy.flag("avx512_bf16", c.avx512_bf16, device.avx512_bf16);
}

}  // namespace

fattn_problem to_c(const Problem& p) {
  fattn_problem c{};
  c.struct_size = sizeof c;
  copy_fields(ToC{}, c, p);
  c.out_dtype = p.out_dtype ? static_cast<int32_t>(*p.out_dtype) : FATTN_UNSET;
  c.total_q = p.total_q.value_or(-1);
  c.total_k = p.total_k.value_or(-1);
  c.has_softmax_scale = p.softmax_scale ? 1 : 0;
  c.softmax_scale = p.softmax_scale.value_or(0);
  for (const Operand operand : kOperands) {
    const auto i = static_cast<std::size_t>(operand);
    const auto& given = given_strides(p.strides, operand);
    c.has_strides[i] = given ? 1 : 0;
    if (given) copy_strides(ToC{}, c.strides[i], *given);
  }
  c.has_bias = p.score.bias ? 1 : 0;
  copy_bias(ToC{}, c, p.score.bias ? *p.score.bias : Bias{});
  c.has_kv_cache = p.kv_cache ? 1 : 0;
  copy_cache(ToC{}, c, p.kv_cache ? *p.kv_cache : KvCache{});
  return c;
}

const fattn_problem& default_problem() {
  static const fattn_problem problem = to_c(Problem{});
  return problem;
}

Problem from_c(const fattn_problem* given) {
  const fattn_problem c = read_struct("problem", given, default_problem());
  require(c.reserved == 0, "problem.reserved = {} must be 0; nearest: 0", c.reserved);
  Problem p;
  copy_fields(FromC{}, c, p);
  if (c.out_dtype != FATTN_UNSET) FromC::choice("out_dtype", c.out_dtype, p.out_dtype.emplace());
  const auto total = [](const char* name, int64_t value, std::optional<int64_t>& to) {
    require(value >= -1, "{} = {} must be at least -1 (not packed); nearest: -1", name, value);
    if (value >= 0) to = value;
  };
  total("total_q", c.total_q, p.total_q);
  total("total_k", c.total_k, p.total_k);
  bool has = false;
  FromC::flag("has_softmax_scale", c.has_softmax_scale, has);
  if (has) p.softmax_scale = c.softmax_scale;
  for (const Operand operand : kOperands) {
    const auto i = static_cast<std::size_t>(operand);
    FromC::flag("has_strides", c.has_strides[i], has);
    if (has) copy_strides(FromC{}, c.strides[i], given_strides(p.strides, operand).emplace());
  }
  FromC::flag("has_bias", c.has_bias, has);
  if (has) copy_bias(FromC{}, c, p.score.bias.emplace());
  FromC::flag("has_kv_cache", c.has_kv_cache, has);
  if (has) copy_cache(FromC{}, c, p.kv_cache.emplace());
  return p;
}

fattn_device to_c(const Device& device) {
  fattn_device c{};
  c.struct_size = sizeof c;
  copy_device(ToC{}, c, device);
  device.name.copy(c.name, sizeof c.name - 1);
  return c;
}

Device from_c(const fattn_device* given) {
  const fattn_device c = read_struct("device", given, to_c(Device{}));
  Device device;
  copy_device(FromC{}, c, device);
  require(device.kind <= DeviceKind::cuda, "kind = {} must be 0 (cpu) or 1 (cuda); nearest: 1", c.kind);
  device.name.assign(c.name, std::find(c.name, c.name + sizeof c.name, '\0'));
  return device;
}

// No allocation here: it is on the way of every run.
Buffers from_c(const fattn_buffers* given) {
  const fattn_buffers c = read_struct("buffers", given, fattn_buffers{});
  return {.q = c.q,
          .k = c.k,
          .v = c.v,
          .o = c.o,
          .lse = c.lse,
          .max_logit = c.max_logit,
          .dout = c.dout,
          .dlse = c.dlse,
          .dq = c.dq,
          .dk = c.dk,
          .dv = c.dv,
          .dbias = c.dbias,
          .dsink = c.dsink,
          .cu_seqlens_q = c.cu_seqlens_q,
          .cu_seqlens_k = c.cu_seqlens_k,
          .seqused_q = c.seqused_q,
          .seqused_k = c.seqused_k,
          .bias = c.bias,
          .alibi_slopes = c.alibi_slopes,
          .sinks = c.sinks,
          .document_q = c.document_q,
          .document_k = c.document_k,
          .prefix = c.prefix,
          .block_offsets = c.block_offsets,
          .block_columns = c.block_columns,
          .block_bits = c.block_bits,
          .block_mask = c.block_mask,
          .dropout_seed = c.dropout_seed,
          .dropout_offset = c.dropout_offset,
          .q_descale = c.q_descale,
          .k_descale = c.k_descale,
          .v_descale = c.v_descale,
          .page_table = c.page_table,
          .k_new = c.k_new,
          .v_new = c.v_new,
          .leftpad = c.leftpad,
          .rotary_cos = c.rotary_cos,
          .rotary_sin = c.rotary_sin};
}

}  // namespace fattn
