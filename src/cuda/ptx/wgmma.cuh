// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "cuda/ptx/arithmetic.cuh"

// The matrix product of a warpgroup: d (64 x n, fp32, registers) = a (64 x 16) . b (16 x n) (+ d). It runs
// asynchronously: registers it reads or writes are the tensor cores' until wgmma_wait.
namespace fattn::gpu::ptx {

// How an operand lies in shared memory: Major::k has the elements of the reduction side by
// side, Major::mn those of the other dimension.
enum class Major : int { k = 0, mn = 1 };

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but the last `groups` committed groups are complete.
template <int groups>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
}

// clang-format off
#define FATTN_NAMES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define FATTN_NAMES_16 FATTN_NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define FATTN_NAMES_32 FATTN_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define FATTN_NAMES_40 FATTN_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define FATTN_NAMES_48 FATTN_NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define FATTN_NAMES_56 FATTN_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define FATTN_NAMES_64 FATTN_NAMES_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define FATTN_NAMES_72 FATTN_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define FATTN_NAMES_80 FATTN_NAMES_72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define FATTN_NAMES_88 FATTN_NAMES_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define FATTN_NAMES_96 FATTN_NAMES_88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define FATTN_NAMES_128 FATTN_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," \
  "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define FATTN_REGISTERS(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
  "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define FATTN_REGISTERS_8 FATTN_REGISTERS(0)
#define FATTN_REGISTERS_16 FATTN_REGISTERS_8, FATTN_REGISTERS(8)
#define FATTN_REGISTERS_32 FATTN_REGISTERS_16, FATTN_REGISTERS(16), FATTN_REGISTERS(24)
#define FATTN_REGISTERS_40 FATTN_REGISTERS_32, FATTN_REGISTERS(32)
#define FATTN_REGISTERS_48 FATTN_REGISTERS_40, FATTN_REGISTERS(40)
#define FATTN_REGISTERS_56 FATTN_REGISTERS_48, FATTN_REGISTERS(48)
#define FATTN_REGISTERS_64 FATTN_REGISTERS_56, FATTN_REGISTERS(56)
#define FATTN_REGISTERS_72 FATTN_REGISTERS_64, FATTN_REGISTERS(64)
#define FATTN_REGISTERS_80 FATTN_REGISTERS_72, FATTN_REGISTERS(72)
#define FATTN_REGISTERS_88 FATTN_REGISTERS_80, FATTN_REGISTERS(80)
#define FATTN_REGISTERS_96 FATTN_REGISTERS_88, FATTN_REGISTERS(88)
#define FATTN_REGISTERS_128 FATTN_REGISTERS_96, FATTN_REGISTERS(96), FATTN_REGISTERS(104), FATTN_REGISTERS(112), \
  FATTN_REGISTERS(120)

// One statement a width, since templates cannot spell operand lists. After the `count` registers of d come the operands
// A0.. of a, then b, accumulate and the immediates: their numbers are written out by the callers below.
#define FATTN_WGMMA_RS(N, COUNT, TYPE, A0, A1, A2, A3, B, ACCUMULATE, MAJOR)                                        \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #ACCUMULATE ", 0;\n"                                             \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE " {" FATTN_NAMES_##COUNT "}, "                \
               "{%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #B ", p, 1, 1, %" #MAJOR "; }"                            \
               : FATTN_REGISTERS_##COUNT                                                                           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(static_cast<int>(major_b)))
#define FATTN_WGMMA_SS(N, COUNT, TYPE, A, B, ACCUMULATE, MAJOR_A, MAJOR_B)                                          \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #ACCUMULATE ", 0;\n"                                             \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE " {" FATTN_NAMES_##COUNT "}, "                \
               "%" #A ", %" #B ", p, 1, 1, %" #MAJOR_A ", %" #MAJOR_B "; }"                                         \
               : FATTN_REGISTERS_##COUNT                                                                           \
               : "l"(a), "l"(b), "r"(accumulate), "n"(static_cast<int>(major_a)), "n"(static_cast<int>(major_b)))

#define FATTN_WGMMA_RS_WIDTHS(TYPE)                                                       \
  if constexpr (n == 16) FATTN_WGMMA_RS(16, 8, TYPE, 8, 9, 10, 11, 12, 13, 14);           \
  else if constexpr (n == 32) FATTN_WGMMA_RS(32, 16, TYPE, 16, 17, 18, 19, 20, 21, 22);   \
  else if constexpr (n == 64) FATTN_WGMMA_RS(64, 32, TYPE, 32, 33, 34, 35, 36, 37, 38);   \
  else if constexpr (n == 80) FATTN_WGMMA_RS(80, 40, TYPE, 40, 41, 42, 43, 44, 45, 46);   \
  else if constexpr (n == 96) FATTN_WGMMA_RS(96, 48, TYPE, 48, 49, 50, 51, 52, 53, 54);   \
  else if constexpr (n == 112) FATTN_WGMMA_RS(112, 56, TYPE, 56, 57, 58, 59, 60, 61, 62); \
  else if constexpr (n == 128) FATTN_WGMMA_RS(128, 64, TYPE, 64, 65, 66, 67, 68, 69, 70); \
  else if constexpr (n == 144) FATTN_WGMMA_RS(144, 72, TYPE, 72, 73, 74, 75, 76, 77, 78); \
  else if constexpr (n == 160) FATTN_WGMMA_RS(160, 80, TYPE, 80, 81, 82, 83, 84, 85, 86); \
  else if constexpr (n == 176) FATTN_WGMMA_RS(176, 88, TYPE, 88, 89, 90, 91, 92, 93, 94); \
  else if constexpr (n == 192) FATTN_WGMMA_RS(192, 96, TYPE, 96, 97, 98, 99, 100, 101, 102); \
  else if constexpr (n == 256) FATTN_WGMMA_RS(256, 128, TYPE, 128, 129, 130, 131, 132, 133, 134); \
  else static_assert(n == 0, "this width of wgmma is not listed here yet")
#define FATTN_WGMMA_SS_WIDTHS(TYPE)                                               \
  if constexpr (n == 16) FATTN_WGMMA_SS(16, 8, TYPE, 8, 9, 10, 11, 12);           \
  else if constexpr (n == 32) FATTN_WGMMA_SS(32, 16, TYPE, 16, 17, 18, 19, 20);   \
  else if constexpr (n == 64) FATTN_WGMMA_SS(64, 32, TYPE, 32, 33, 34, 35, 36);   \
  else if constexpr (n == 80) FATTN_WGMMA_SS(80, 40, TYPE, 40, 41, 42, 43, 44);   \
  else if constexpr (n == 96) FATTN_WGMMA_SS(96, 48, TYPE, 48, 49, 50, 51, 52);   \
  else if constexpr (n == 112) FATTN_WGMMA_SS(112, 56, TYPE, 56, 57, 58, 59, 60); \
  else if constexpr (n == 128) FATTN_WGMMA_SS(128, 64, TYPE, 64, 65, 66, 67, 68); \
  else if constexpr (n == 144) FATTN_WGMMA_SS(144, 72, TYPE, 72, 73, 74, 75, 76); \
  else if constexpr (n == 160) FATTN_WGMMA_SS(160, 80, TYPE, 80, 81, 82, 83, 84); \
  else if constexpr (n == 176) FATTN_WGMMA_SS(176, 88, TYPE, 88, 89, 90, 91, 92); \
  else if constexpr (n == 192) FATTN_WGMMA_SS(192, 96, TYPE, 96, 97, 98, 99, 100); \
  else if constexpr (n == 256) FATTN_WGMMA_SS(256, 128, TYPE, 128, 129, 130, 131, 132); \
  else static_assert(n == 0, "this width of wgmma is not listed here yet")
// clang-format on

template <class Element>
inline constexpr bool is_bf16 = false;
template <>
inline constexpr bool is_bf16<Bf16> = true;

// a in registers, b in shared memory.
template <class Element, int n, Major major_b>
__device__ __forceinline__ void wgmma(float (&d)[n / 2], const std::uint32_t* a, std::uint64_t b, int accumulate) {
  if constexpr (is_bf16<Element>) {
    FATTN_WGMMA_RS_WIDTHS("bf16.bf16");
  } else {
    FATTN_WGMMA_RS_WIDTHS("f16.f16");
  }
}

// Both in shared memory.
template <class Element, int n, Major major_a, Major major_b>
__device__ __forceinline__ void wgmma(float (&d)[n / 2], std::uint64_t a, std::uint64_t b, int accumulate) {
  if constexpr (is_bf16<Element>) {
    FATTN_WGMMA_SS_WIDTHS("bf16.bf16");
  } else {
    FATTN_WGMMA_SS_WIDTHS("f16.f16");
  }
}

#undef FATTN_NAMES_8
#undef FATTN_NAMES_16
#undef FATTN_NAMES_32
#undef FATTN_NAMES_40
#undef FATTN_NAMES_48
#undef FATTN_NAMES_56
#undef FATTN_NAMES_64
#undef FATTN_NAMES_72
#undef FATTN_NAMES_80
#undef FATTN_NAMES_88
#undef FATTN_NAMES_96
#undef FATTN_NAMES_128
#undef FATTN_REGISTERS
#undef FATTN_REGISTERS_8
#undef FATTN_REGISTERS_16
#undef FATTN_REGISTERS_32
#undef FATTN_REGISTERS_40
#undef FATTN_REGISTERS_48
#undef FATTN_REGISTERS_56
#undef FATTN_REGISTERS_64
#undef FATTN_REGISTERS_72
#undef FATTN_REGISTERS_80
#undef FATTN_REGISTERS_88
#undef FATTN_REGISTERS_96
#undef FATTN_REGISTERS_128
#undef FATTN_WGMMA_RS
#undef FATTN_WGMMA_SS
#undef FATTN_WGMMA_RS_WIDTHS
#undef FATTN_WGMMA_SS_WIDTHS

}  // namespace fattn::gpu::ptx
