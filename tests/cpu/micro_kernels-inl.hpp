// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fattn::host::FATTN_TARGET {

template <class Function>
inline void map(const float* in, float* out, int count, Function function) {
  for (int i = 0; i < count; i += kLanes) {
    float lanes[kLanes] = {};
    for (int j = 0; j < kLanes && i + j < count; ++j) lanes[j] = in[i + j];
    store(lanes, function(load(lanes)));
    for (int j = 0; j < kLanes && i + j < count; ++j) out[i + j] = lanes[j];
  }
}

inline void exp2_all(const float* in, float* out, int count) {
  map(in, out, count, [](Vec x) { return exp2(x); });
}
inline void tanh_all(const float* in, float* out, int count) {
  map(in, out, count, [](Vec x) { return tanh(x); });
}
inline void round_all(DType dtype, const float* in, float* out, int count) {
  map(in, out, count, [dtype](Vec x) {
    return dtype == DType::bf16   ? Format<DType::bf16>::round(x)
           : dtype == DType::fp16 ? Format<DType::fp16>::round(x)
                                  : Format<DType::fp32>::round(x);
  });
}
inline void qk_any(bool add, const float* a, std::int64_t row, std::int64_t panel, int rows, const float* b, int depth,
                   float* c, std::int64_t c_stride) {
  const RowsOperand left{a, row, panel};
  return add ? qk<Into::add>(left, rows, b, depth, c, c_stride)
             : qk<Into::overwrite>(left, rows, b, depth, c, c_stride);
}

}  // namespace fattn::host::FATTN_TARGET
