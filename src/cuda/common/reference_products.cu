// SPDX-License-Identifier: Apache-2.0
// The products of the device oracle: o, dq, dk and dv are all sums of weights times rows; dbias is a sum of weights.
#include "cuda/common/reference_tile.cuh"
#include "cuda/launch.hpp"
#include "cuda/ptx/address.cuh"

namespace fattn::gpu {
namespace {

constexpr int kColumns = 128;               // columns of the output that a block sums at a time
constexpr int kPerColumns = kColumns / 16;  // of which a thread has this many

struct Shared {
  union {
    Staging staging;
    double rows[kDepth][kColumns];  // of the tensor that the weights multiply
  };
  double weights[kTile][kPitch];  // [summed index][row of the output]
};

__host__ __device__ constexpr bool queries_are_rows(Product product) {
  return product == Product::o || product == Product::dq;
}
__host__ __device__ constexpr Weight weight_of(Product product) {
  return product == Product::o || product == Product::dv ? Weight::probability : Weight::logit_gradient;
}

__device__ Slice output_of(Product product, const ReferenceParams& p, const Sequence& s, int head) {
  switch (product) {
    case Product::o: return query_slice(p.o, s, head, p.head_dim_v);
    case Product::dq: return query_slice(p.dq, s, head, p.head_dim);
    case Product::dk: return key_slice(p.dk, s, head, p.head_dim);
    default: return key_slice(p.dv, s, head, p.head_dim_v);
  }
}
__device__ Slice multiplied_by(Product product, const ReferenceParams& p, const Sequence& s, int head) {
  const int head_kv = head / (p.heads_q / p.heads_kv);
  switch (product) {
    case Product::o: return key_slice(p.v, s, head_kv, p.head_dim_v);
    case Product::dq: return key_slice(p.k, s, head_kv, p.head_dim);
    case Product::dk: return query_slice(p.q, s, head, p.head_dim);
    default: return query_slice(p.dout, s, head, p.head_dim_v);
  }
}

__host__ __device__ int columns_of(Product product, const ReferenceParams& p) {
  return product == Product::o || product == Product::dv ? p.head_dim_v : p.head_dim;
}
__host__ __device__ std::int64_t product_items(Product product, const ReferenceParams& p) {
  const std::int64_t tiles = tiles_of(queries_are_rows(product) ? p.seqlen_q : p.seqlen_k);
  const std::int64_t chunks = (columns_of(product, p) + kColumns - 1) / kColumns;
  return tiles * chunks * (queries_are_rows(product) ? p.heads_q : p.heads_kv) * p.batch;
}

// sums[i][j] += sum over n of weights[n][ty + 16 i] * x(begin + n, column + tx + 16 j). Ends with a barrier.
__device__ void accumulate(Shared& shared, const Slice& x, int begin, int column, double (&sums)[kPer][kPerColumns]) {
  const int c = thread_column(), r = thread_row();
  for (int first = 0; first < kTile; first += kDepth) {
    for (int n = static_cast<int>(threadIdx.x); n < kDepth * kColumns; n += kThreads)
      shared.rows[n / kColumns][n % kColumns] = x.load(begin + first + n / kColumns, column + n % kColumns);
    __syncthreads();
#pragma unroll 4
    for (int n = 0; n < kDepth; ++n) {
      double values[kPerColumns];
#pragma unroll
      for (int j = 0; j < kPerColumns; ++j) values[j] = shared.rows[n][c + 16 * j];
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const double weight = shared.weights[first + n][r + 16 * i];
        if (!present(weight)) continue;
#pragma unroll
        for (int j = 0; j < kPerColumns; ++j) sums[i][j] = fma(weight, values[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
}

template <Product product>
__global__ void __launch_bounds__(kThreads) weighted_sum(const __grid_constant__ ReferenceParams p) {
  Shared& shared = *reinterpret_cast<Shared*>(ptx::dynamic_shared());
  constexpr bool kByQueries = queries_are_rows(product);
  const std::int64_t tiles = tiles_of(kByQueries ? p.seqlen_q : p.seqlen_k);
  const std::int64_t chunks = (columns_of(product, p) + kColumns - 1) / kColumns;
  const int heads = kByQueries ? p.heads_q : p.heads_kv, group = p.heads_q / p.heads_kv;

  for (std::int64_t item = blockIdx.x; item < product_items(product, p); item += gridDim.x) {
    const int begin = static_cast<int>(item % tiles) * kTile;
    const int column = static_cast<int>(item / tiles % chunks) * kColumns;
    const int head = static_cast<int>(item / tiles / chunks % heads);
    const Sequence s = sequence_of(p, static_cast<int>(item / tiles / chunks / heads));
    const int length = kByQueries ? s.band.seqlen_q : s.band.seqlen_k;
    if (begin >= length) continue;

    const int end = min(begin + kTile, length);
    const TileRange range = kByQueries ? s.band.tiles(begin, end, kTile) : s.band.tiles_for(begin, end, kTile);
    double sums[kPer][kPerColumns] = {};
    for (int member = 0; member < (kByQueries ? 1 : group); ++member) {
      const int head_q = kByQueries ? head : head * group + member;
      for (int tile = range.begin; tile < range.end; ++tile) {
        const int other = tile * kTile;
        double weights[kPer][kPer];
        pair_weights<weight_of(product)>(p, s, head_q, kByQueries ? begin : other, kByQueries ? other : begin,
                                         shared.staging, weights);
#pragma unroll
        for (int i = 0; i < kPer; ++i) {
#pragma unroll
          for (int j = 0; j < kPer; ++j) {
            const int query = thread_row() + 16 * i, key = thread_column() + 16 * j;
            shared.weights[kByQueries ? key : query][kByQueries ? query : key] = weights[i][j];
          }
        }
        accumulate(shared, multiplied_by(product, p, s, head_q), other, column, sums);
      }
    }

    const Slice out = output_of(product, p, s, head);
#pragma unroll
    for (int i = 0; i < kPer; ++i)
#pragma unroll
      for (int j = 0; j < kPerColumns; ++j)
        out.store(begin + thread_row() + 16 * i, column + thread_column() + 16 * j, sums[i][j]);
  }
}

// A block sums one 64 x 64 tile of dbias, or a whole row of tiles or column of them or all where the bias is broadcast,
// over the sequences and heads that share it, always in the same order.
struct BiasItem {
  std::int64_t batch, head;
  int q_tile, k_tile;
};
__host__ __device__ BiasItem bias_extents(const ReferenceParams& p) {
  return {p.bias.batch ? p.batch : 1, p.bias.heads ? p.heads_q : 1,
          p.bias.queries ? static_cast<int>(tiles_of(p.seqlen_q)) : 1,
          p.bias.keys ? static_cast<int>(tiles_of(p.seqlen_k)) : 1};
}
__host__ __device__ std::int64_t bias_items(const ReferenceParams& p) {
  const BiasItem extents = bias_extents(p);
  return extents.batch * extents.head * extents.q_tile * extents.k_tile;
}

__device__ void store_dbias(const ReferenceParams& p, const BiasItem& at, int query, int key, double value) {
  if ((p.bias.queries && query >= p.seqlen_q) || (p.bias.keys && key >= p.seqlen_k)) return;
  p.dbias[at.batch * p.bias.batch_stride + at.head * p.bias.head_stride + query * p.bias.query_stride +
          key * p.bias.key_stride] = static_cast<float>(value);
}

__global__ void __launch_bounds__(kThreads) dbias(const __grid_constant__ ReferenceParams p) {
  Shared& shared = *reinterpret_cast<Shared*>(ptx::dynamic_shared());
  const BiasItem extents = bias_extents(p);

  for (std::int64_t item = blockIdx.x; item < bias_items(p); item += gridDim.x) {
    const BiasItem at{
        item / extents.k_tile / extents.q_tile / extents.head, item / extents.k_tile / extents.q_tile % extents.head,
        static_cast<int>(item / extents.k_tile % extents.q_tile), static_cast<int>(item % extents.k_tile)};
    double sums[kPer][kPer] = {};
    const int last_batch = p.bias.batch ? static_cast<int>(at.batch) + 1 : p.batch;
    for (int b = p.bias.batch ? static_cast<int>(at.batch) : 0; b < last_batch; ++b) {
      const Sequence s = sequence_of(p, b);
      const int last_head = p.bias.heads ? static_cast<int>(at.head) + 1 : p.heads_q;
      for (int head = p.bias.heads ? static_cast<int>(at.head) : 0; head < last_head; ++head) {
        const int q_tiles = static_cast<int>(tiles_of(s.band.seqlen_q));
        const int last_q = p.bias.queries ? min(at.q_tile + 1, q_tiles) : q_tiles;
        for (int q_tile = p.bias.queries ? at.q_tile : 0; q_tile < last_q; ++q_tile) {
          const int q_end = min((q_tile + 1) * kTile, s.band.seqlen_q);
          TileRange range = s.band.tiles(q_tile * kTile, q_end, kTile);
          if (p.bias.keys) {
            range.begin = max(range.begin, at.k_tile);
            range.end = min(range.end, at.k_tile + 1);
          }
          for (int k_tile = range.begin; k_tile < range.end; ++k_tile) {
            double weights[kPer][kPer];
            pair_weights<Weight::score_gradient>(p, s, head, q_tile * kTile, k_tile * kTile, shared.staging, weights);
            for (int i = 0; i < kPer; ++i)
              for (int j = 0; j < kPer; ++j) sums[i][j] += weights[i][j];
          }
        }
      }
    }

    for (int i = 0; i < kPer; ++i)
      for (int j = 0; j < kPer; ++j) shared.weights[thread_row() + 16 * i][thread_column() + 16 * j] = sums[i][j];
    __syncthreads();
    // Fold the broadcast extents of the tile: keys into column 0, then queries into row 0.
    const int lane = static_cast<int>(threadIdx.x);
    if (!p.bias.keys && lane < kTile)
      for (int key = 1; key < kTile; ++key) shared.weights[lane][0] += shared.weights[lane][key];
    __syncthreads();
    if (!p.bias.queries && lane < (p.bias.keys ? kTile : 1))
      for (int query = 1; query < kTile; ++query) shared.weights[0][lane] += shared.weights[query][lane];
    __syncthreads();
    const int rows = p.bias.queries ? kTile : 1, columns = p.bias.keys ? kTile : 1;
    for (int n = lane; n < rows * columns; n += kThreads)
      store_dbias(p, at, at.q_tile * kTile + n / columns, at.k_tile * kTile + n % columns,
                  shared.weights[n / columns][n % columns]);
    __syncthreads();
  }
}

template <Product product>
void launch_product(const ReferenceParams& p, cudaStream_t stream) {
  const std::int64_t items = product_items(product, p);
  if (items == 0) return;
  launch("reference weighted_sum", weighted_sum<product>,
         {.grid = grid_for(items), .block = dim3(kThreads), .shared_bytes = sizeof(Shared)}, stream, p);
}

}  // namespace

std::size_t reference_shared_bytes() { return sizeof(Shared); }

void load_reference_products(const Device& device, bool backward) {
  if (!backward) {
    load_kernel(device, "reference weighted_sum", weighted_sum<Product::o>, sizeof(Shared));
    return;
  }
  load_kernel(device, "reference weighted_sum", weighted_sum<Product::dq>, sizeof(Shared));
  load_kernel(device, "reference weighted_sum", weighted_sum<Product::dk>, sizeof(Shared));
  load_kernel(device, "reference weighted_sum", weighted_sum<Product::dv>, sizeof(Shared));
  load_kernel(device, "reference dbias", dbias, sizeof(Shared));
}

void reference_product(Product product, const ReferenceParams& p, cudaStream_t stream) {
  switch (product) {
    case Product::o: return launch_product<Product::o>(p, stream);
    case Product::dq: return launch_product<Product::dq>(p, stream);
    case Product::dk: return launch_product<Product::dk>(p, stream);
    case Product::dv: return launch_product<Product::dv>(p, stream);
  }
}

void reference_dbias(const ReferenceParams& p, cudaStream_t stream) {
  if (bias_items(p) == 0) return;
  launch("reference dbias", dbias,
         {.grid = grid_for(bias_items(p)), .block = dim3(kThreads), .shared_bytes = sizeof(Shared)}, stream, p);
}

}  // namespace fattn::gpu
