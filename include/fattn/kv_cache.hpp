// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace fattn {

// What a decode Problem says about its key/value cache. k and v of the Problem are the cache:
// [batch, seqlen_k, heads_kv, head_dim], or pages [pages, page_size, heads_kv, head_dim] when page_size > 0.
struct KvCache {
  std::int64_t page_size = 0;   // 0: not paged
  std::int64_t pages = 0;       // pages in the pool
  std::int64_t append = 0;      // new keys and values per sequence, written into the cache before attention
  bool leftpad = false;         // the first leftpad[batch] positions of the cache are absent
  std::int64_t rotary_dim = 0;  // 0: none; applied to q and to appended keys
  bool rotary_interleaved = false;
  friend bool operator==(const KvCache&, const KvCache&) = default;
};

}  // namespace fattn
