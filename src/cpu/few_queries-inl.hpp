// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/score-inl.hpp"

// The forward pass for a few queries and many keys, at the speed of memory: nothing is packed, each row of K and V is
// read where it lies, once for all query heads that share it. A vector is one query and kLanes columns, then one query
// and kLanes keys.
namespace fattn::host::FATTN_TARGET {

// Rows are computed four at a time, and so many vectors of output columns.
inline constexpr int kFewAtOnce = 4, kFewColumns = kLanes >= 16 ? 4 : 2;

// Rows of an item: of `fold` heads from `head` on, `queries.length` each.
struct FewRows {
  std::int64_t batch, head;
  Rows queries;
  int count;

  std::int64_t head_of(int row) const { return head + row / queries.length; }
  int query_of(int row) const { return row % queries.length; }
};
inline FewRows few_rows(const ForwardWork& work, std::int64_t item) {
  const ForwardPlan& plan = work.plan;
  const std::int64_t groups = plan.geometry.problem.heads_q / plan.fold;
  const Rows queries = plan.geometry.queries(work.buffers, item / groups);
  return {item / groups, item % groups * plan.fold, queries, plan.fold * queries.length};
}

// The tile of keys that an item is at.
struct FewKeys {
  RowsSource k, v;
  int key;
  bool masked;  // some pair may be invisible

  bool unseen(int i) const { return k.keep != nullptr && !k.keep[i]; }
};

template <DType dtype>
const typename Format<dtype>::Element* few_row(const RowsSource& source, int row) {
  return static_cast<const typename Format<dtype>::Element*>(source.data) + row * source.row_stride;
}
// The row that will be asked for soon. Inline at all costs: GCC takes a function that only prefetches for one that does
// nothing, and leaves it out.
template <DType dtype>
FATTN_INLINE void fetch_row(const RowsSource& source, int row) {
  if (row >= source.rows) return;
  const char* const bytes = reinterpret_cast<const char*>(few_row<dtype>(source, row));
  const int count = source.columns * static_cast<int>(sizeof(typename Format<dtype>::Element));
  for (int at = 0; at < count; at += 64) __builtin_prefetch(bytes + at);
}

// The sum of each vector.
template <int count>
void store_sums(const Vec (&a)[count], float* to) {
  if constexpr (count == kLanes) {
    store(to, sums(a));
  } else {
    for (int i = 0; i < count; ++i) to[i] = sum(a[i]);
  }
}

template <DType dtype>
Vec load_up_to(const typename Format<dtype>::Element* row, int column, int columns) {
  const int left = columns - column;
  return left >= kLanes ? Format<dtype>::load(row + column) : load_some<dtype>(row + column, left);
}

// s[row][key] = q[row] . k[key], four rows and as many keys as their sums fill one vector. Keys past the last one of
// the tile are that one again.
template <DType dtype>
void few_scores(const FewKeys& keys, const float* q, int width, float* s, int stride) {
  constexpr int kAhead = 12, kKeysAtOnce = kLanes / kFewAtOnce > 0 ? kLanes / kFewAtOnce : 1;
  const int count = keys.k.rows;
  for (int i = 0; i < count; i += kKeysAtOnce) {
    const typename Format<dtype>::Element* row[kKeysAtOnce];
    FATTN_UNROLL(4)
    for (int j = 0; j < kKeysAtOnce; ++j) {
      fetch_row<dtype>(keys.k, i + j + kAhead);
      row[j] = few_row<dtype>(keys.k, min_of(i + j, count - 1));
    }
    Vec products[kFewAtOnce * kKeysAtOnce];
    FATTN_UNROLL(16)
    for (Vec& each : products) each = zero();
    for (int column = 0; column < keys.k.columns; column += kLanes) {
      Vec x[kKeysAtOnce];
      FATTN_UNROLL(4)
      for (int j = 0; j < kKeysAtOnce; ++j) x[j] = load_up_to<dtype>(row[j], column, keys.k.columns);
      FATTN_UNROLL(4)
      for (int r = 0; r < kFewAtOnce; ++r) {
        const Vec y = load(q + r * width + column);
        FATTN_UNROLL(4)
        for (int j = 0; j < kKeysAtOnce; ++j)
          products[r * kKeysAtOnce + j] = fma(y, x[j], products[r * kKeysAtOnce + j]);
      }
    }
    float lanes[kFewAtOnce * kKeysAtOnce];
    store_sums(products, lanes);
    FATTN_UNROLL(4)
    for (int r = 0; r < kFewAtOnce; ++r) {
      __builtin_memcpy(s + r * stride + i, lanes + r * kKeysAtOnce, kKeysAtOnce * sizeof(float));
    }
  }
}

// The scores of one row become weights; its state follows. Returns the factor of its output so far.
template <DType dtype>
float few_softmax(const Geometry& g, const FewKeys& keys, const ForwardScratch& scratch, int row, float* s) {
  const int count = keys.k.rows, padded = round_up(count, kLanes);
  const float c = g.plain ? g.scale * kLog2e : kLog2e;
  const Softcap softcap(g.softcap);
  for (int i = count; i < padded; ++i) s[i] = -kInfinity;
  Vec tops = splat(-kInfinity);
  for (int i = 0; i < padded; i += kLanes) {
    Vec x = load(s + i);
    if (!g.plain) x = softcap.apply(x * splat(g.scale));
    if (keys.masked || i + kLanes > count) {
      const int end = min_of(scratch.last[row], keys.key + count);
      x = select(within(count_from(keys.key + i), splat(scratch.first[row]), splat(end)), x, splat(-kInfinity));
    }
    store(s + i, x);
    tops = max(x, tops);
  }
  float lanes[kLanes], top = scratch.max[row];
  store(lanes, tops);
  for (int i = 0; i < kLanes; ++i) top = lanes[i] > top ? lanes[i] : top;
  const float base = top == -kInfinity ? 0 : top;
  Vec total = zero();
  for (int i = 0; i < padded; i += kLanes) {
    const Vec weight = exp2((load(s + i) - splat(base)) * splat(c));
    total = total + weight;
    store(s + i, Format<dtype>::round(weight));
  }
  store(lanes, exp2(splat((scratch.max[row] - base) * c)));
  const float factor = scratch.max[row] == -kInfinity ? 0 : lanes[0];
  scratch.sum[row] = scratch.sum[row] * factor + sum(total);
  scratch.max[row] = top;
  return factor;
}

// o[row] = o[row] * factor[row] + weights[row] V, four rows.
template <DType dtype>
void few_output(const FewKeys& keys, const float* weights, int stride, const float* factor, float* o, int width) {
  constexpr int kAhead = 12;
  for (int column = 0; column < keys.v.columns; column += kFewColumns * kLanes) {
    Vec sums[kFewAtOnce][kFewColumns];
    FATTN_UNROLL(4)
    for (int r = 0; r < kFewAtOnce; ++r) {
      FATTN_UNROLL(4)
      for (int j = 0; j < kFewColumns; ++j) sums[r][j] = zero();
    }
    for (int i = 0; i < keys.v.rows; ++i) {
      if (column == 0) fetch_row<dtype>(keys.v, i + kAhead);
      if (keys.unseen(i)) continue;
      const auto* const row = few_row<dtype>(keys.v, i);
      Vec x[kFewColumns];
      FATTN_UNROLL(4)
      for (int j = 0; j < kFewColumns; ++j) {
        const int at = column + j * kLanes;
        x[j] = at < keys.v.columns ? load_up_to<dtype>(row, at, keys.v.columns) : zero();
      }
      FATTN_UNROLL(4)
      for (int r = 0; r < kFewAtOnce; ++r) {
        const Vec weight = splat_from(weights + r * stride + i);
        FATTN_UNROLL(4)
        for (int j = 0; j < kFewColumns; ++j) sums[r][j] = fma(weight, x[j], sums[r][j]);
      }
    }
    FATTN_UNROLL(4)
    for (int r = 0; r < kFewAtOnce; ++r) {
      FATTN_UNROLL(4)
      for (int j = 0; j < kFewColumns; ++j) {
        float* const to = o + r * width + column + j * kLanes;
        if (column + j * kLanes < keys.v.columns) store(to, fma(load(to), splat(factor[r]), sums[r][j]));
      }
    }
  }
}

template <DType dtype>
void few_step(const ForwardPlan& plan, const FewKeys& keys, int rows, const ForwardScratch& scratch) {
  const Geometry& g = plan.geometry;
  const int width = round_up(g.d, kLanes), o_width = round_up(g.dv, kLanes), stride = plan.tile.k;
  for (int row = 0; row < rows; row += kFewAtOnce) {
    float* const s = scratch.s + row * stride;
    float factor[kFewAtOnce];
    few_scores<dtype>(keys, scratch.q + row * width, width, s, stride);
    for (int r = 0; r < kFewAtOnce; ++r) factor[r] = few_softmax<dtype>(g, keys, scratch, row + r, s + r * stride);
    few_output<dtype>(keys, s, stride, factor, scratch.o + row * o_width, o_width);
  }
}

template <DType dtype>
void few_queries_of(const ForwardWork& work, const FewRows& at, const ForwardScratch& scratch) {
  const ForwardPlan& plan = work.plan;
  const int d = plan.geometry.d, width = round_up(d, kLanes);
  for (int row = 0; row < round_up(at.count, kFewAtOnce); ++row) {
    float* const to = scratch.q + row * width;
    const void* const from =
        row < at.count ? plan.q.at(work.buffers.q, at.batch, at.queries.begin + at.query_of(row), at.head_of(row))
                       : nullptr;
    for (int column = 0; column < width; column += kLanes) {
      const auto* const elements = static_cast<const typename Format<dtype>::Element*>(from);
      store(to + column, from == nullptr ? zero() : load_up_to<dtype>(elements, column, d));
    }
  }
}

// Each row of K and V where it lies, four rows of queries at a time.
inline void few_as_they_lie(const ForwardWork& work, const FewRows& at, const Band& band, const Rows& keys, int split,
                            const ForwardScratch& scratch) {
  const ForwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const int rows = round_up(at.count, kFewAtOnce), width = round_up(g.dv, kLanes);
  __builtin_memset(scratch.o, 0, sizeof(float) * static_cast<std::size_t>(rows) * static_cast<std::size_t>(width));
  switch (g.problem.dtype) {
    case DType::bf16: few_queries_of<DType::bf16>(work, at, scratch); break;
    case DType::fp16: few_queries_of<DType::fp16>(work, at, scratch); break;
    default: few_queries_of<DType::fp32>(work, at, scratch); break;
  }

  const TileRange tiles = band.tiles(0, at.queries.length, plan.tile.k);
  const int part = plan.splits > 1 ? kSplitKeys / plan.tile.k : tiles.end;
  const std::int64_t head_kv = at.head / g.group;
  for (int t = max_of(tiles.begin, split * part); t < min_of(tiles.end, (split + 1) * part); ++t) {
    const int key = t * plan.tile.k, count = min_of(plan.tile.k, keys.length - key);
    const bool masked = t < tiles.interior_begin || t >= tiles.interior_end;
    if (masked) mark_seen_keys(band, 0, at.queries.length, key, count, scratch.seen);
    const bool* const seen = masked ? scratch.seen : nullptr;
    const FewKeys tile{plan.k.rows(work.buffers.k, at.batch, keys.begin + key, head_kv, count, g.d, seen),
                       plan.v.rows(work.buffers.v, at.batch, keys.begin + key, head_kv, count, g.dv, seen), key,
                       masked};
    switch (g.problem.dtype) {
      case DType::bf16: few_step<DType::bf16>(plan, tile, rows, scratch); break;
      case DType::fp16: few_step<DType::fp16>(plan, tile, rows, scratch); break;
      default: few_step<DType::fp32>(plan, tile, rows, scratch); break;
    }
  }
}

// The rows as one tile of many queries.
inline void few_as_many(const ForwardWork& work, const FewRows& at, const Band& band, const Rows& keys, int split,
                        const ForwardScratch& scratch) {
  const ForwardPlan& plan = work.plan;
  const int d = plan.geometry.d, bytes = d * static_cast<int>(plan.q.element_bytes);
  // The place of K is free until the first tile.
  char* const gathered = reinterpret_cast<char*>(scratch.k);
  for (int row = 0; row < at.count; ++row) {
    __builtin_memcpy(gathered + row * bytes,
                     plan.q.at(work.buffers.q, at.batch, at.queries.begin + at.query_of(row), at.head_of(row)),
                     static_cast<std::size_t>(bytes));
  }
  begin_item(plan, {gathered, plan.q.dtype, d, 1, at.count, d}, scratch);
  const ScoreTile like{.band = band, .query = 0, .rows = at.count, .slope = 0, .marks_stride = plan.tile.q};
  walk_keys(work, like, {at.batch, at.head, 0, at.queries, 0, at.count}, at.queries.length, keys, split, scratch);
}

inline void few_item(const ForwardWork& work, std::int64_t item, int lane) {
  const ForwardPlan& plan = work.plan;
  const Geometry& g = plan.geometry;
  const int split = static_cast<int>(item % plan.splits);
  const FewRows at = few_rows(work, item / plan.splits);
  const Rows &queries = at.queries, keys = g.keys(work.buffers, at.batch);
  if (split == 0) {
    for (std::int64_t head = at.head; head < at.head + plan.fold; ++head) {
      write_empty_rows(work, at.batch, head, queries.begin + queries.length, queries.end);
    }
  }
  if (at.count == 0) return;

  const ForwardScratch scratch = work.scratch(lane);
  const Band band = g.band(work.buffers, at.batch, queries, keys);
  // Products of pairs are fastest on whole panels of rows. The plan decides, so that bits do not depend on lengths.
  const bool as_many = kPairs && plan.part_rows() > 2 * kFewAtOnce;
  for (int i = 0; i < round_up(at.count, kPanel); ++i) {
    const Interval visible = i < at.count ? band.visible(at.query_of(i)) : Interval{0, kUnbounded};
    scratch.first[i] = visible.begin;
    scratch.last[i] = visible.end;
    scratch.max[i] = scratch.max_logit[i] = -kInfinity;
    scratch.sum[i] = 0;
  }
  if (as_many) {
    few_as_many(work, at, band, keys, split, scratch);
  } else {
    few_as_they_lie(work, at, band, keys, split, scratch);
  }
  for (int i = 0; i < at.count; ++i) {
    float* const row = as_many ? output_row(plan, i, scratch) : scratch.o + i * round_up(g.dv, kLanes);
    if (plan.splits > 1) {
      keep_part(work, item, i, scratch.max[i], scratch.sum[i], row);
    } else {
      write_row(work, at.batch, at.head_of(i), queries.begin + at.query_of(i), scratch.max[i], scratch.sum[i], row);
    }
  }
}

inline void merge_few(const ForwardWork& work, std::int64_t item) {
  const FewRows at = few_rows(work, item);
  for (int i = 0; i < at.count; ++i) {
    merge_row(work, item, i, at.batch, at.head_of(i), at.queries.begin + at.query_of(i));
  }
}

}  // namespace fattn::host::FATTN_TARGET
