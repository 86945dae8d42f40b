// SPDX-License-Identifier: Apache-2.0
#include "core/overlap.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/blocks.hpp"
#include "core/extents.hpp"
#include "core/message.hpp"

namespace fattn {
namespace {

using std::int64_t;

// The elements of one array. Without initialisers: there is room for many, and clearing it took longer than the checks.
struct Region {
  const char* name;
  std::uintptr_t base;
  int64_t element_bytes;
  std::array<int64_t, 4> extent;
  std::array<int64_t, 4> stride;  // in elements, the largest first
  bool output;
  std::uintptr_t last;  // where the last element begins
  std::uintptr_t end;

  void find_end() {
    int64_t offset = 0;
    for (int i = 0; i < 4; ++i) offset += (extent[i] - 1) * stride[i];
    last = base + static_cast<std::uintptr_t>(offset * element_bytes);
    end = last + static_cast<std::uintptr_t>(element_bytes);
  }
  // Is the byte part of an element? Exact where larger strides step over all that lies inside smaller ones; yes is
  // always true.
  bool holds(std::uintptr_t byte) const {
    if (byte < base) return false;
    int64_t left = static_cast<int64_t>((byte - base) / static_cast<std::uintptr_t>(element_bytes));
    for (int i = 0; i < 4; ++i) {
      if (stride[i] > 0) left -= std::min(left / stride[i], extent[i] - 1) * stride[i];
    }
    return left == 0;
  }
};

class Regions {
 public:
  void tensor(const Problem& p, const char* name, const void* data, Operand operand, bool output) {
    const Extents e = extents(p, operand);
    if (data == nullptr || e.empty() || !takes_part(p.pass, operand)) return;
    const Strides s = strides(p, operand);
    Region region{name,
                  reinterpret_cast<std::uintptr_t>(data),
                  size_of(dtype_of(p, operand)),
                  {e.batch, e.seqlen, e.heads, e.dim},
                  {packed(p, operand) ? 0 : s.batch, s.seqlen, s.head, s.dim},
                  output,
                  0,
                  0};
    // Four elements: sorting them by hand allocates nothing.
    for (int i = 0; i < 3; ++i) {
      for (int j = 3; j > i; --j) {
        if (region.stride[j] <= region.stride[j - 1]) continue;
        std::swap(region.stride[j], region.stride[j - 1]);
        std::swap(region.extent[j], region.extent[j - 1]);
      }
    }
    add(region);
  }
  void array(const char* name, const void* data, int64_t count, int64_t element_bytes, bool output) {
    if (data == nullptr || count == 0) return;
    add({name, reinterpret_cast<std::uintptr_t>(data), element_bytes, {1, 1, 1, count}, {1, 1, 1, 1}, output, 0, 0});
  }
  void check() const {
    for (int i = 0; i < count_; ++i) {
      for (int j = 0; j < i; ++j) {
        const Region &a = all_[i], &b = all_[j];
        if (!a.output && !b.output) continue;
        if (a.end <= b.base || b.end <= a.base) continue;
        const bool apart = !a.holds(b.base) && !a.holds(b.last) && !b.holds(a.base) && !b.holds(a.last);
        const Region &written = a.output ? a : b, &other = a.output ? b : a;
        require(apart, "{} = {} overlaps {} = {}, and outputs must not overlap anything; nearest: memory of its own",
                written.name, reinterpret_cast<const void*>(written.base), other.name,
                reinterpret_cast<const void*>(other.base));
      }
    }
  }

 private:
  void add(const Region& region) {
    all_[count_] = region;
    all_[count_++].find_end();
  }

  std::array<Region, 36> all_;
  int count_ = 0;
};

}  // namespace

void check_overlap(const Problem& p, const Buffers& b, const void* workspace, std::size_t workspace_bytes) {
  const bool backward = p.pass == Pass::backward;
  Regions regions;
  regions.tensor(p, "q", b.q, Operand::q, false);
  regions.tensor(p, "k", b.k, Operand::k, false);
  regions.tensor(p, "v", b.v, Operand::v, false);
  regions.tensor(p, "o", b.o, Operand::o, !backward);
  regions.tensor(p, "dout", b.dout, Operand::dout, false);
  regions.tensor(p, "dq", b.dq, Operand::dq, true);
  regions.tensor(p, "dk", b.dk, Operand::dk, true);
  regions.tensor(p, "dv", b.dv, Operand::dv, true);
  const int64_t rows = p.heads_q * (p.total_q ? *p.total_q : p.batch * p.seqlen_q);
  if (backward || p.return_lse) regions.array("lse", b.lse, rows, 4, !backward);
  if (p.return_max_logit) regions.array("max_logit", b.max_logit, p.heads_q, 4, true);
  if (p.dlse) regions.array("dlse", b.dlse, rows, 4, false);
  if (p.dsink) regions.array("dsink", b.dsink, p.heads_q, 4, true);
  if (p.sinks) regions.array("sinks", b.sinks, p.heads_q, 4, false);
  if (p.score.alibi != Alibi::none) {
    const int64_t slices = p.score.alibi == Alibi::per_batch_and_head ? p.batch : 1;
    regions.array("alibi_slopes", b.alibi_slopes, slices * p.heads_q, 4, false);
  }
  // What says where data lie: a run that writes over it would follow it.
  const auto numbers = [&](const char* name, const void* data, bool given, int64_t count, int64_t element_bytes) {
    if (given) regions.array(name, data, count, element_bytes, false);
  };
  numbers("cu_seqlens_q", b.cu_seqlens_q, p.total_q.has_value(), p.batch + 1, 4);
  numbers("cu_seqlens_k", b.cu_seqlens_k, p.total_k.has_value(), p.batch + 1, 4);
  numbers("seqused_q", b.seqused_q, p.seqused_q, p.batch, 4);
  numbers("seqused_k", b.seqused_k, p.seqused_k, p.batch, 4);
  numbers("document_q", b.document_q, p.mask.documents, p.total_q ? *p.total_q : p.batch * p.seqlen_q, 4);
  numbers("document_k", b.document_k, p.mask.documents, p.total_k ? *p.total_k : p.batch * p.seqlen_k, 4);
  numbers("prefix", b.prefix, p.mask.prefix, p.batch, 4);
  if (p.mask.block_sparse) numbers("block_offsets", b.block_offsets, true, count_of_block_offsets(p), 4);
  numbers("dropout_seed", b.dropout_seed, p.dropout > 0, 1, 8);
  numbers("dropout_offset", b.dropout_offset, p.dropout > 0, 1, 8);
  // Scratch memory is written like an output.
  regions.array("workspace", workspace, static_cast<int64_t>(workspace_bytes), 1, true);
  if (!p.score.bias) return regions.check();
  const Bias& bias = *p.score.bias;
  const int64_t elements = (bias.batch ? p.batch : 1) * (bias.heads ? p.heads_q : 1) * (bias.queries ? p.seqlen_q : 1) *
                           (bias.keys ? p.seqlen_k : 1);
  regions.array("bias", b.bias, elements, size_of(bias.dtype), false);
  if (p.dbias) regions.array("dbias", b.dbias, elements, 4, true);
  regions.check();
}

}  // namespace fattn
