// SPDX-License-Identifier: Apache-2.0
#include "core/buffer_table.hpp"

#include <utility>

#include "core/blocks.hpp"
#include "core/extents.hpp"

namespace fattn {
namespace {

using std::int64_t;

class Table {
 public:
  explicit Table(const Problem& problem) : p_(problem) { entries_.reserve(40); }

  void tensor(const char* name, std::size_t at, Operand operand, Access access) {
    const Extents e = extents(p_, operand);
    BufferEntry entry{.name = name, .at = at, .alignment = p_.alignment};
    entry.needed = takes_part(p_.pass, operand) && !e.empty();
    if (entry.needed) {
      const Strides s = strides(p_, operand);
      entry.access = access;
      entry.element_bytes = size_of(dtype_of(p_, operand));
      entry.extent = {e.batch, e.seqlen, e.heads, e.dim};
      entry.stride = {packed(p_, operand) ? 0 : s.batch, s.seqlen, s.head, s.dim};
      largest_stride_first(entry);
      find_last(entry);
    }
    entries_.push_back(entry);
  }

  // An array that an option of the problem calls for. It may be null where it has no elements.
  BufferEntry& option(const char* name, std::size_t at, bool given, int64_t alignment, bool empty = false) {
    entries_.push_back({.name = name, .at = at, .needed = given && !empty, .out_of_place = !given});
    entries_.back().alignment = alignment;
    return entries_.back();
  }
  // The same, of `count` elements as large as their alignment, which must not be written over while a run reads them:
  // they may say where other data lie.
  void array(const char* name, std::size_t at, bool given, int64_t alignment, int64_t count,
             Access access = Access::reads) {
    BufferEntry& entry = option(name, at, given, alignment, count == 0);
    if (!entry.needed) return;
    entry.access = access;
    entry.element_bytes = alignment;
    entry.extent[3] = count;
    find_last(entry);
  }

  std::vector<BufferEntry> take() { return std::move(entries_); }

 private:
  static void largest_stride_first(BufferEntry& entry) {
    for (int i = 0; i < 3; ++i) {
      for (int j = 3; j > i; --j) {
        if (entry.stride[j] <= entry.stride[j - 1]) continue;
        std::swap(entry.stride[j], entry.stride[j - 1]);
        std::swap(entry.extent[j], entry.extent[j - 1]);
      }
    }
  }
  static void find_last(BufferEntry& entry) {
    int64_t offset = 0;
    for (int i = 0; i < 4; ++i) offset += (entry.extent[i] - 1) * entry.stride[i];
    entry.last = offset * entry.element_bytes;
  }

  const Problem& p_;
  std::vector<BufferEntry> entries_;
};

int64_t elements_of(const Problem& p, const Bias& bias) {
  return (bias.batch ? p.batch : 1) * (bias.heads ? p.heads_q : 1) * (bias.queries ? p.seqlen_q : 1) *
         (bias.keys ? p.seqlen_k : 1);
}

}  // namespace

std::vector<BufferEntry> buffer_table(const Problem& p) {
  const bool forward = p.pass != Pass::backward, backward = p.pass == Pass::backward;
  const Access written_by_forward = backward ? Access::reads : Access::writes;
  Table table(p);
  const auto tensor = [&](const char* name, std::size_t at, Operand operand, Access access) {
    table.tensor(name, at, operand, access);
  };
  tensor("q", offsetof(Buffers, q), Operand::q, Access::reads);
  tensor("k", offsetof(Buffers, k), Operand::k, Access::reads);
  tensor("v", offsetof(Buffers, v), Operand::v, Access::reads);
  tensor("o", offsetof(Buffers, o), Operand::o, written_by_forward);
  tensor("dout", offsetof(Buffers, dout), Operand::dout, Access::reads);
  tensor("dq", offsetof(Buffers, dq), Operand::dq, Access::writes);
  tensor("dk", offsetof(Buffers, dk), Operand::dk, Access::writes);
  tensor("dv", offsetof(Buffers, dv), Operand::dv, Access::writes);

  const int64_t queries = p.total_q ? *p.total_q : p.batch * p.seqlen_q;
  const int64_t keys = p.total_k ? *p.total_k : p.batch * p.seqlen_k;
  const int64_t rows = p.heads_q * queries;
  const auto array = [&](const char* name, std::size_t at, bool given, int64_t bytes, int64_t count,
                         Access access = Access::reads) { table.array(name, at, given, bytes, count, access); };
  array("lse", offsetof(Buffers, lse), backward || p.return_lse, 4, rows, written_by_forward);
  // Of one pass; the other passes ignore them.
  const auto& bias = p.score.bias;
  const int64_t bias_elements = bias ? elements_of(p, *bias) : 0;
  if (forward) array("max_logit", offsetof(Buffers, max_logit), p.return_max_logit, 4, p.heads_q, Access::writes);
  if (backward) {
    array("dlse", offsetof(Buffers, dlse), p.dlse, 4, rows);
    array("dbias", offsetof(Buffers, dbias), p.dbias, 4, bias_elements, Access::writes);
    array("dsink", offsetof(Buffers, dsink), p.dsink, 4, p.heads_q, Access::writes);
  }

  array("cu_seqlens_q", offsetof(Buffers, cu_seqlens_q), p.total_q.has_value(), 4, p.batch + 1);
  array("cu_seqlens_k", offsetof(Buffers, cu_seqlens_k), p.total_k.has_value(), 4, p.batch + 1);
  array("seqused_q", offsetof(Buffers, seqused_q), p.seqused_q, 4, p.batch);
  array("seqused_k", offsetof(Buffers, seqused_k), p.seqused_k, 4, p.batch);

  array("bias", offsetof(Buffers, bias), bias.has_value(), bias ? size_of(bias->dtype) : 1, bias_elements);
  const int64_t slopes = (p.score.alibi == Alibi::per_batch_and_head ? p.batch : 1) * p.heads_q;
  array("alibi_slopes", offsetof(Buffers, alibi_slopes), p.score.alibi != Alibi::none, 4, slopes);
  array("sinks", offsetof(Buffers, sinks), p.sinks, 4, p.heads_q);

  array("document_q", offsetof(Buffers, document_q), p.mask.documents, 4, queries);
  array("document_k", offsetof(Buffers, document_k), p.mask.documents, 4, keys);
  array("prefix", offsetof(Buffers, prefix), p.mask.prefix, 4, p.batch);
  const bool blocks = static_cast<bool>(p.mask.block_sparse);
  array("block_offsets", offsetof(Buffers, block_offsets), blocks, 4, blocks ? count_of_block_offsets(p) : 0);
  table.option("block_columns", offsetof(Buffers, block_columns), blocks, 4);
  table.option("block_bits", offsetof(Buffers, block_bits), blocks, 8);
  table.option("block_mask", offsetof(Buffers, block_mask), blocks, 4).may_be_null = true;  // no partial block

  array("dropout_seed", offsetof(Buffers, dropout_seed), p.dropout > 0, 8, 1);
  array("dropout_offset", offsetof(Buffers, dropout_offset), p.dropout > 0, 8, 1);
  const bool descaled = p.descale.kind != DescaleKind::none;
  table.option("q_descale", offsetof(Buffers, q_descale), descaled, 4);
  const bool no_factors = p.descale.kind == DescaleKind::block && p.seqlen_k == 0;
  table.option("k_descale", offsetof(Buffers, k_descale), descaled, 4, no_factors);
  table.option("v_descale", offsetof(Buffers, v_descale), descaled, 4, no_factors);

  const KvCache cache = p.kv_cache.value_or(KvCache{});
  table.option("page_table", offsetof(Buffers, page_table), cache.page_size > 0, 4);
  table.option("k_new", offsetof(Buffers, k_new), cache.append > 0, p.alignment);
  table.option("v_new", offsetof(Buffers, v_new), cache.append > 0, p.alignment);
  table.option("leftpad", offsetof(Buffers, leftpad), cache.leftpad, 4);
  table.option("rotary_cos", offsetof(Buffers, rotary_cos), cache.rotary_dim > 0, size_of(p.dtype));
  table.option("rotary_sin", offsetof(Buffers, rotary_sin), cache.rotary_dim > 0, size_of(p.dtype));
  return table.take();
}

BufferEntry written_bytes(const char* name, int64_t bytes) {
  BufferEntry entry{.name = name, .at = 0};
  entry.access = Access::writes;
  entry.extent[3] = bytes;
  entry.last = bytes - 1;
  return entry;
}

}  // namespace fattn
