// SPDX-License-Identifier: Apache-2.0
// Handlers of XLA's foreign function interface: forward and backward on the CPU and on CUDA. Operands come in a fixed
// order, those that are optional as the attribute `given` says. Dimensions before the usual ones are vmap's.
#include "xla.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "describe.hpp"
#include "options.hpp"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace fattn::python {
namespace {

using std::int64_t;

// Bits of `given`, in the order of the operands after q, k, v. fattn/jax.py has the same list.
enum Given : unsigned {
  kCuSeqlensQ = 1,
  kCuSeqlensK = 2,
  kUsedQ = 4,
  kUsedK = 8,
  kBias = 16,
  kAlibi = 32,
  kSinkLogits = 64,
  kGradientOfLse = 128,  // backward: after o, lse, dout
};

DType dtype_of(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::F64: return DType::fp64;
    case ffi::DataType::F32: return DType::fp32;
    case ffi::DataType::BF16: return DType::bf16;
    case ffi::DataType::F16: return DType::fp16;
    case ffi::DataType::F8E4M3FN: return DType::e4m3;
    default: break;
  }
  throw Error(Status::invalid_argument,
              "dtype of an array must be float64, float32, bfloat16, float16 or float8_e4m3fn");
}

// An operand or result of one of the `outer` problems that vmap has put side by side.
struct Operand {
  ffi::AnyBuffer buffer;
  int64_t outer;

  char* at(int64_t index) const {
    return static_cast<char*>(buffer.untyped_data()) +
           static_cast<std::size_t>(index) * (buffer.size_bytes() / static_cast<std::size_t>(outer));
  }
  // The last `rank` dimensions; those before them are folded into the first.
  Array array(const char* name, int rank, bool fold) const {
    const auto extents = buffer.dimensions();
    Array out{.name = name, .address = reinterpret_cast<std::uintptr_t>(buffer.untyped_data()), .rank = rank};
    const std::size_t skipped = extents.size() - static_cast<std::size_t>(rank);
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; --i) {
      const auto index = static_cast<std::size_t>(i);
      out.shape[index] = extents[skipped + index] * (fold && i == 0 ? outer : 1);
      out.stride[index] = stride;
      stride *= out.shape[index];
    }
    return out;
  }
};

class Attributes {
 public:
  explicit Attributes(const ffi::Dictionary& values) : values_(values) {}
  int64_t integer(std::string_view name) const { return get<int64_t>(name); }
  double real(std::string_view name) const { return get<double>(name); }
  bool flag(std::string_view name) const { return integer(name) != 0; }
  std::string text(std::string_view name) const { return std::string(get<std::string_view>(name)); }

 private:
  template <class T>
  T get(std::string_view name) const {
    auto value = values_.get<T>(name);
    if (value.has_error()) throw Error(Status::internal_error, "attribute " + std::string(name) + " is missing");
    return *value;
  }
  const ffi::Dictionary& values_;
};

Options options_of(const Attributes& a) {
  Options options;
  options.causal = a.flag("causal");
  options.causal_top_left = a.flag("causal_top_left");
  options.window_left = a.integer("window_left");
  options.window_right = a.integer("window_right");
  options.chunk = a.integer("chunk");
  if (a.flag("scaled")) options.softmax_scale = a.real("softmax_scale");
  options.softcap = a.real("softcap");
  options.deterministic = a.flag("deterministic");
  options.batch_invariant = a.flag("batch_invariant");
  options.kernel = a.text("kernel");
  return options;
}

// Zero-filled memory for one run: of the host, or of XLA's allocator on the stream.
using HostMemory = std::unique_ptr<void, decltype(&std::free)>;

HostMemory host_zeros(std::size_t bytes) {
  constexpr std::size_t kAlign = Plan::workspace_alignment();
  HostMemory memory(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign), &std::free);
  if (!memory)
    throw Error(Status::out_of_memory, "no host memory for a workspace of " + std::to_string(bytes) + " bytes");
  std::memset(memory.get(), 0, bytes);
  return memory;
}

void* device_zeros(ffi::ScratchAllocator& scratch, std::size_t bytes, CUstream_st* stream) {
  // The driver is in the process, because XLA computes with it; this package links none.
  using Memset = int (*)(unsigned long long, unsigned char, std::size_t, CUstream_st*);
  static const auto memset_async = [] {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
    return driver == nullptr ? nullptr : reinterpret_cast<Memset>(dlsym(driver, "cuMemsetD8Async"));
  }();
  if (memset_async == nullptr) throw Error(Status::device_error, "libcuda.so.1 has no cuMemsetD8Async");
  // XLA gives no more than this alignment on request.
  constexpr std::size_t kOffered = 16;
  constexpr std::size_t kAlign = Plan::workspace_alignment();
  const auto memory = scratch.Allocate(bytes + kAlign - kOffered, kOffered);
  if (!memory) {
    throw Error(Status::device_error, "no device memory for a workspace of " + std::to_string(bytes) + " bytes");
  }
  void* begin = *memory;
  std::size_t room = bytes + kAlign - kOffered;
  if (std::align(kAlign, bytes, begin, room) == nullptr) {
    throw Error(Status::device_error, "device memory for a workspace is not aligned to 16 bytes");
  }
  if (memset_async(reinterpret_cast<unsigned long long>(begin), 0, bytes, stream) != 0) {
    throw Error(Status::device_error, "cuMemsetD8Async failed");
  }
  return begin;
}

// What differs between the two platforms.
struct Place {
  int device = -1;  // CUDA ordinal
  CUstream_st* stream = nullptr;
  ffi::ScratchAllocator* scratch = nullptr;
};

class Call {
 public:
  Call(bool backward, const ffi::RemainingArgs& args, const ffi::RemainingRets& rets, const ffi::Dictionary& attrs)
      : backward_(backward), attributes_(attrs), given_(static_cast<unsigned>(attributes_.integer("given"))) {
    for (std::size_t i = 0; i < args.size(); ++i) {
      const ffi::AnyBuffer buffer = *args.get<ffi::AnyBuffer>(i);
      if (i == 0) {
        for (std::size_t d = 0; d + base_rank(given_) < buffer.dimensions().size(); ++d)
          outer_ *= buffer.dimensions()[d];
      }
      operands_.push_back({buffer, outer_});
    }
    for (std::size_t i = 0; i < rets.size(); ++i) results_.push_back({**rets.get<ffi::AnyBuffer>(i), outer_});
  }

  void run(const Place& place) {
    // Problems side by side are one of a larger batch, unless something else than the sequences comes with them.
    const bool fold = outer_ > 1 && (given_ & ~kGradientOfLse) == 0;
    const int64_t runs = fold ? 1 : outer_;
    if (outer_ == 0) return;
    const std::shared_ptr<Planned> planned = find_plan(request(place, fold));
    if (!planned) return;
    const std::size_t bytes = planned->plan.workspace_bytes();
    for (int64_t i = 0; i < runs; ++i) {
      HostMemory memory(nullptr, &std::free);
      void* workspace = nullptr;
      if (bytes > 0) {
        if (place.device < 0) memory = host_zeros(bytes);
        workspace = place.device < 0 ? memory.get() : device_zeros(*place.scratch, bytes, place.stream);
      }
      fattn::run(planned->plan, buffers(i), {workspace, bytes}, Stream(place.stream));
    }
  }

 private:
  static std::size_t base_rank(unsigned given) { return (given & kCuSeqlensQ) != 0 ? 3 : 4; }

  // The operand of a bit of `given`, or null.
  const Operand* optional(unsigned bit) const {
    if ((given_ & bit) == 0) return nullptr;
    std::size_t index = bit == kGradientOfLse ? 6 : 3;
    if (bit != kGradientOfLse) {
      if (backward_) index += 3 + ((given_ & kGradientOfLse) != 0 ? 1 : 0);
      for (unsigned lower = 1; lower < bit; lower <<= 1) index += (given_ & lower) != 0 ? 1 : 0;
    }
    return &operands_[index];
  }

  Request request(const Place& place, bool fold) const {
    Request request;
    Problem& p = request.problem;
    const auto base = static_cast<int>(base_rank(given_));
    p.pass = backward_ ? Pass::backward : Pass::forward;
    p.dtype = dtype_of(operands_[0].buffer.element_type());
    const Options options = options_of(attributes_);
    options.apply(p);
    const auto sequences = [&](unsigned bit) {
      const Operand* cu_seqlens = optional(bit);
      return cu_seqlens == nullptr ? 0 : int64_t(cu_seqlens->buffer.dimensions().back()) - 1;
    };
    describe(p, operands_[0].array("q", base, fold), operands_[1].array("k", base, fold),
             operands_[2].array("v", base, fold),
             {sequences(kCuSeqlensQ), attributes_.integer("max_seqlen_q"), attributes_.integer("max_seqlen_k")});
    if (backward_) describe_dout(p, operands_[5].array("dout", base, fold));
    if (const Operand* bias = optional(kBias); bias != nullptr) {
      const auto extents = static_cast<int>(attributes_.integer("bias_rank"));
      if (extents < 0 || extents > 4) {
        throw Error(Status::invalid_argument, "bias has " + std::to_string(extents) + " dimensions; nearest: 4");
      }
      p.score.bias = describe_bias(p, bias->array("bias", extents, false), dtype_of(bias->buffer.element_type()));
    }
    apply_flags(p, static_cast<unsigned>(attributes_.integer("flags")));
    request.kind = place.device < 0 ? DeviceKind::cpu : DeviceKind::cuda;
    request.index = place.device < 0 ? 0 : place.device;
    request.kernel = options.kernel;
    return request;
  }

  template <class T>
  T* address(unsigned bit, int64_t index) const {
    const Operand* operand = optional(bit);
    return operand == nullptr ? nullptr : reinterpret_cast<T*>(operand->at(index));
  }

  Buffers buffers(int64_t i) const {
    Buffers b;
    b.q = operands_[0].at(i);
    b.k = operands_[1].at(i);
    b.v = operands_[2].at(i);
    b.cu_seqlens_q = address<const std::int32_t>(kCuSeqlensQ, i);
    b.cu_seqlens_k = address<const std::int32_t>(kCuSeqlensK, i);
    b.seqused_q = address<const std::int32_t>(kUsedQ, i);
    b.seqused_k = address<const std::int32_t>(kUsedK, i);
    b.bias = address<const void>(kBias, i);
    b.alibi_slopes = address<const float>(kAlibi, i);
    b.sinks = address<const float>(kSinkLogits, i);
    if (!backward_) {
      b.o = results_[0].at(i);
      b.lse = reinterpret_cast<float*>(results_[1].at(i));
      return b;
    }
    b.o = operands_[3].at(i);
    b.lse = reinterpret_cast<float*>(operands_[4].at(i));
    b.dout = operands_[5].at(i);
    b.dlse = address<const float>(kGradientOfLse, i);
    b.dq = results_[0].at(i);
    b.dk = results_[1].at(i);
    b.dv = results_[2].at(i);
    std::size_t next = 3;
    const auto flags = static_cast<unsigned>(attributes_.integer("flags"));
    if ((flags & kDbias) != 0) b.dbias = reinterpret_cast<float*>(results_[next++].at(i));
    if ((flags & kDsink) != 0) b.dsink = reinterpret_cast<float*>(results_[next++].at(i));
    return b;
  }

  bool backward_;
  Attributes attributes_;
  unsigned given_;
  int64_t outer_ = 1;
  std::vector<Operand> operands_;
  std::vector<Operand> results_;
};

ffi::Error handle(bool backward, const ffi::RemainingArgs& args, const ffi::RemainingRets& rets,
                  const ffi::Dictionary& attrs, const Place& place) {
  try {
    Call(backward, args, rets, attrs).run(place);
  } catch (const Error& error) {
    const bool unsupported = error.status() == Status::unsupported;
    return {unsupported ? ffi::ErrorCode::kUnimplemented : ffi::ErrorCode::kInvalidArgument, error.what()};
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

template <bool kBackward>
ffi::Error handle_cpu(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attrs) {
  return handle(kBackward, args, rets, attrs, {});
}

template <bool kBackward>
ffi::Error handle_cuda(CUstream_st* stream, std::int32_t device, ffi::ScratchAllocator scratch, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, ffi::Dictionary attrs) {
  return handle(kBackward, args, rets, attrs, {.device = device, .stream = stream, .scratch = &scratch});
}

auto bind_cpu() { return ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs(); }
auto bind_cuda() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::PlatformStream<CUstream_st*>>()
      .Ctx<ffi::DeviceOrdinal>()
      .Ctx<ffi::ScratchAllocator>()
      .RemainingArgs()
      .RemainingRets()
      .Attrs();
}

XLA_FFI_DEFINE_HANDLER(kForwardCpu, handle_cpu<false>, bind_cpu());
XLA_FFI_DEFINE_HANDLER(kBackwardCpu, handle_cpu<true>, bind_cpu());
XLA_FFI_DEFINE_HANDLER(kForwardCuda, handle_cuda<false>, bind_cuda(), {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER(kBackwardCuda, handle_cuda<true>, bind_cuda(), {ffi::Traits::kCmdBufferCompatible});

nb::capsule capsule(XLA_FFI_Handler* handler) { return nb::capsule(reinterpret_cast<void*>(handler)); }

}  // namespace

void add_xla_handlers(nb::module_& m) {
  nb::list handlers;
  handlers.append(nb::make_tuple("fattn_forward", "cpu", capsule(kForwardCpu)));
  handlers.append(nb::make_tuple("fattn_backward", "cpu", capsule(kBackwardCpu)));
  handlers.append(nb::make_tuple("fattn_forward", "CUDA", capsule(kForwardCuda)));
  handlers.append(nb::make_tuple("fattn_backward", "CUDA", capsule(kBackwardCuda)));
  m.attr("xla_handlers") = nb::tuple(handlers);
}

}  // namespace fattn::python
