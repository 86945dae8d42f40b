// SPDX-License-Identifier: Apache-2.0
#include "core/lengths.hpp"

#include <algorithm>

#include "core/message.hpp"

namespace fattn {
namespace {

using std::int32_t;
using std::int64_t;

void check_cu_seqlens(const char* name, const char* longest_name, const int32_t* cu_seqlens, int64_t batch,
                      int64_t longest, int64_t total) {
  require(cu_seqlens[0] == 0, "{}[0] = {} must be 0; nearest: 0", name, cu_seqlens[0]);
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t begin = cu_seqlens[b], end = cu_seqlens[b + 1];
    require(end >= begin, "{}[{}] = {} is below {}[{}] = {}; nearest: {}", name, b + 1, end, name, b, begin, begin);
    require(end - begin <= longest, "{}[{}] = {} makes sequence {} longer than {} = {}; nearest: {}", name, b + 1, end,
            b, longest_name, longest, begin + longest);
    require(end <= total, "{}[{}] = {} is beyond the {} rows of its tensor; nearest: {}", name, b + 1, end, total,
            total);
  }
}

void check_seqused(const char* name, const int32_t* seqused, const int32_t* cu_seqlens, int64_t batch, int64_t longest,
                   int64_t appended) {
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = cu_seqlens != nullptr ? cu_seqlens[b + 1] - cu_seqlens[b] : longest;
    const int64_t most = std::max<int64_t>(0, length - appended);
    require(seqused[b] >= 0 && seqused[b] <= most, "{}[{}] = {} must be in [0, {}]; nearest: {}", name, b, seqused[b],
            most, std::clamp<int64_t>(seqused[b], 0, most));
  }
}

}  // namespace

void check_lengths(const Problem& problem, const HostLengths& lengths) {
  const auto& [cu_q, cu_k, used_q, used_k] = lengths;
  const int64_t appended = problem.kv_cache ? problem.kv_cache->append : 0;
  if (cu_q != nullptr && problem.total_q) {
    check_cu_seqlens("cu_seqlens_q", "seqlen_q", cu_q, problem.batch, problem.seqlen_q, *problem.total_q);
  }
  if (cu_k != nullptr && problem.total_k) {
    check_cu_seqlens("cu_seqlens_k", "seqlen_k", cu_k, problem.batch, problem.seqlen_k, *problem.total_k);
  }
  if (used_q != nullptr) check_seqused("seqused_q", used_q, cu_q, problem.batch, problem.seqlen_q, 0);
  if (used_k != nullptr) check_seqused("seqused_k", used_k, cu_k, problem.batch, problem.seqlen_k, appended);
}

}  // namespace fattn
