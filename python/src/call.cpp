// SPDX-License-Identifier: Apache-2.0
#include "call.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "describe.hpp"
#include "options.hpp"
#include "request.hpp"
#include "tensor.hpp"

namespace nb = nanobind;

namespace fattn::python {
namespace {

using std::int64_t;
using Address = std::uint64_t;

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

// --- the optional arrays ---------------------------------------------------------------------------------------------

// In the order in which the framework hands them over.
enum Side {
  kCuQ,
  kCuK,
  kUsedQ,
  kUsedK,
  kBias,
  kAlibi,
  kSink,
  kDocumentQ,
  kDocumentK,
  kPrefixes,
  kSeed,
  kOffset,
  kSides
};
constexpr const char* kSideNames[kSides] = {"cu_seqlens_q", "cu_seqlens_k", "seqused_q",    "seqused_k",
                                            "bias",         "alibi_slopes", "sinks",        "document_q",
                                            "document_k",   "prefix",       "dropout_seed", "dropout_offset"};

struct Sides {
  std::array<Tensor, kSides> tensor = {};
  int64_t batch = 0;  // of packed sequences
  unsigned flags = 0;

  bool has(Side side) const { return tensor[side].object.is_valid(); }
  template <class Pointer>
  Pointer at(Side side) const {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): tensors hand addresses as integers
    return reinterpret_cast<Pointer>(has(side) ? tensor[side].array.address : 0);
  }
};

Sides read_sides(nb::handle tensors) {
  Sides out;
  if (tensors.is_none()) return out;
  for (int i = 0; i < kSides; ++i) {
    const nb::handle object = PyTuple_GetItem(tensors.ptr(), i);
    if (!object.is_valid()) throw nb::python_error();
    if (!object.is_none()) out.tensor[static_cast<std::size_t>(i)] = read_tensor(kSideNames[i], object);
  }
  return out;
}

Shape rows_of(const Array& array) {
  Shape shape{.rank = array.rank - 2, .extent = {}};
  std::copy_n(array.shape.begin(), std::max(shape.rank, 0), shape.extent.begin());
  return shape;
}

// Packed tensors have cu_seqlens, others do not.
void require_packing(const Array& array, const char* cu_name, bool given) {
  const std::string shape = std::string(array.name) + " of shape " + shape_text(array.shape.data(), array.rank);
  if (array.rank == 3 && !given) {
    refuse(shape + " is packed, (total, heads, head_dim), and " + cu_name +
           " is None; nearest: (batch, seqlen, heads, head_dim), or attention_varlen with int32 " + cu_name);
  }
  if (array.rank != 3 && given) refuse(shape + " is not packed and " + cu_name + " is given; nearest: None");
}

void check_packing(const Array& q, const Array& k, Sides& sides) {
  const bool packed_q = q.rank == 3, packed_k = k.rank == 3;
  if (!packed_q && !packed_k) {
    if (!sides.has(kCuQ) && !sides.has(kCuK)) return;
    refuse("cu_seqlens goes with packed tensors (total, heads, head_dim); nearest: attention_varlen");
  }
  require_packing(q, kSideNames[kCuQ], sides.has(kCuQ));
  require_packing(k, kSideNames[kCuK], sides.has(kCuK));
  const Array& cu = sides.tensor[packed_q ? kCuQ : kCuK].array;
  sides.batch = cu.rank == 1 ? cu.shape[0] - 1 : 0;
  if (sides.batch < 1) {
    refuse(std::string(cu.name) + " has shape " + shape_text(cu.shape.data(), cu.rank) +
           "; nearest: (batch + 1,) with batch at least 1");
  }
}

// Checks what is given against q and k, and says it in `flags`.
void check_sides(Sides& sides, const Tensor& q, const Tensor& k) {
  for (const Tensor& tensor : sides.tensor) {  // the memory of a negative view has the other sign
    if (!tensor.object.is_valid() || !nb::cast<bool>(tensor.object.attr("is_neg")())) continue;
    const std::string name = tensor.array.name;
    refuse(name + " is a negative view; nearest: " + name + ".resolve_neg()");
  }
  check_packing(q.array, k.array, sides);
  if (q.array.rank < 3) return;  // describe() refuses it
  const int64_t batch = sides.batch > 0 ? sides.batch : q.array.shape[0];
  const int64_t heads = q.array.shape[static_cast<std::size_t>(q.array.rank - 2)];
  const auto check = [&](Side side, unsigned flag, Element element, std::initializer_list<Shape> shapes) {
    if (!sides.has(side)) return;
    require_side(sides.tensor[side], element, q.device, shapes);
    sides.flags |= flag;
  };
  const Shape sequences{1, {batch}}, ends{1, {batch + 1}}, one{1, {1}};
  check(kCuQ, 0, Element::int32, {ends});
  check(kCuK, 0, Element::int32, {ends});
  check(kUsedQ, kSequsedQ, Element::int32, {sequences});
  check(kUsedK, kSequsedK, Element::int32, {sequences});
  if (sides.has(kBias)) {
    const Tensor& bias = sides.tensor[kBias];
    require_side(bias, dtype_of(bias.element) ? bias.element : Element::fp32, q.device, {});
  }
  check(kAlibi, 0, Element::fp32, {Shape{1, {heads}}, Shape{2, {batch, heads}}});
  if (sides.has(kAlibi)) sides.flags |= sides.tensor[kAlibi].array.rank == 1 ? kAlibiHead : kAlibiBatch;
  check(kSink, kSinks, Element::fp32, {Shape{1, {heads}}});
  if (sides.has(kDocumentQ) != sides.has(kDocumentK)) refuse("document_q and document_k go together; nearest: both");
  check(kDocumentQ, kDocuments, Element::int32, {rows_of(q.array)});
  check(kDocumentK, kDocuments, Element::int32, {rows_of(k.array)});
  check(kPrefixes, kPrefix, Element::int32, {sequences});
  check(kSeed, 0, Element::int64, {one});
  check(kOffset, 0, Element::int64, {one});
}

// --- the plan of a call ----------------------------------------------------------------------------------------------

// What a call needs beside its tensors. Calls of one kind share it.
struct Prepared {
  std::shared_ptr<Planned> planned;  // null: no query rows, so nothing to compute
  nb::tuple o_shape, lse_shape;
  bool like_q = false;             // o has the layout of q
  std::array<bool, 3> dense = {};  // q, k, v are contiguous
  std::size_t workspace_bytes = 0;
  int64_t serial = 0;
};

// All that decides about a plan, as plain words: cheaper to build, hash and compare than a Request.
struct Key {
  static constexpr std::size_t kWords = 48;
  std::array<int64_t, kWords> word = {};
  std::size_t count = 0;
  std::string kernel;

  void add(int64_t value) { word[count++] = value; }
  void add(double value) { add(std::bit_cast<int64_t>(value)); }
  void add(const Array& array) {
    for (std::size_t i = 0; i < 4; ++i) word[count++] = array.shape[i];
    for (std::size_t i = 0; i < 4; ++i) word[count++] = array.stride[i];
  }
  friend bool operator==(const Key& a, const Key& b) { return a.word == b.word && a.kernel == b.kernel; }
};

struct HashKey {
  std::size_t operator()(const Key& key) const {
    std::uint64_t a = 1, b = 2;  // two chains, so that multiplications overlap
    for (std::size_t i = 0; i + 1 < key.count; i += 2) {
      a = (a ^ static_cast<std::uint64_t>(key.word[i])) * 0x9E3779B97F4A7C15;
      b = (b ^ static_cast<std::uint64_t>(key.word[i + 1])) * 0xC2B2AE3D27D4EB4F;
      a ^= a >> 29;
      b ^= b >> 31;
    }
    return static_cast<std::size_t>(a ^ std::rotl(b, 32)) ^ std::hash<std::string>()(key.kernel);
  }
};

// Touched only by a thread that holds Python's lock. Never destroyed: Python may be gone before.
using Kept = std::unordered_map<Key, nb::object, HashKey>;
Kept& kept() {
  static auto* map = new Kept;
  return *map;
}

struct Call {
  bool backward;
  unsigned flags;
  int threads;
  Tensor q, k, v, dout;
  Sides sides;
  Options options;
  int64_t longest_q, longest_k;
};

Key key_of(const Call& call) {
  Key key;
  const Options& o = call.options;
  const bool bias = call.sides.has(kBias);
  const Tensor& scores = call.sides.tensor[kBias];
  const std::uintptr_t addresses =
      call.q.array.address | call.k.array.address | call.v.array.address | call.dout.array.address;
  int64_t word = 0;
  const auto pack = [&](auto value, int bits) { word = (word << bits) | static_cast<int64_t>(value); };
  pack(call.backward, 1);
  pack(call.q.element, 4);
  for (const Tensor* tensor : {&call.q, &call.k, &call.v, &call.dout}) pack(tensor->array.rank, 3);
  pack(call.flags | call.sides.flags, 12);
  for (const bool option : {o.causal, o.causal_top_left, o.deterministic, o.batch_invariant}) pack(option, 1);
  pack(o.softmax_scale.has_value(), 1);
  pack(addresses & 15, 4);
  pack(bias ? static_cast<int>(scores.element) + 1 : 0, 4);
  pack(bias ? scores.array.rank : 0, 3);
  key.add(word);
  key.add((int64_t{call.q.device} << 32) | call.threads);
  for (const int64_t each : {call.sides.batch, call.longest_q, call.longest_k, o.window_left, o.window_right, o.chunk})
    key.add(each);
  for (const double each : {o.softmax_scale.value_or(0), o.softcap, o.dropout}) key.add(each);
  for (const Tensor* tensor : {&call.q, &call.k, &call.v, &call.dout}) key.add(tensor->array);
  if (bias) {
    for (const int64_t extent : scores.array.shape) key.add(extent);
  }
  key.kernel = o.kernel;
  // The variable may change while a program runs.
  if (key.kernel.empty()) {
    if (const char* named = std::getenv("FATTN_KERNEL"); named != nullptr) key.kernel = named;
  }
  return key;
}

nb::tuple tuple_of(const std::vector<int64_t>& values) {
  nb::list out;
  for (const int64_t value : values) out.append(value);
  return nb::tuple(out);
}

Prepared make(const Call& call, const std::string& kernel) {
  Request request;
  Problem& p = request.problem;
  p.pass = call.backward ? Pass::backward : Pass::forward;
  const auto dtype = dtype_of(call.q.element);
  if (!dtype) refuse_dtype(call.q);
  p.dtype = *dtype;
  call.options.apply(p);
  const Array &q = call.q.array, &k = call.k.array, &v = call.v.array;
  describe(p, q, k, v, {call.sides.batch, call.longest_q, call.longest_k});
  if (call.backward) describe_dout(p, call.dout.array);
  if (const Tensor& bias = call.sides.tensor[kBias]; call.sides.has(kBias)) {
    const auto bias_dtype = dtype_of(bias.element);
    if (!bias_dtype) {
      throw nb::type_error(
          ("bias has dtype " + printed(bias.object.attr("dtype")) + "; nearest: torch.float32").c_str());
    }
    p.score.bias = describe_bias(p, bias.array, *bias_dtype);
  }
  apply_flags(p, call.flags | call.sides.flags);
  request.kind = call.q.device < 0 ? DeviceKind::cpu : DeviceKind::cuda;
  request.index = std::max(call.q.device, 0);
  request.threads = call.threads;
  request.kernel = kernel;

  Prepared out;
  const bool packed = q.rank == 3;
  const auto at = [&](int dimension) { return q.shape[static_cast<std::size_t>(q.rank - 4 + dimension)]; };
  std::vector<int64_t> o_shape(q.shape.begin(), q.shape.begin() + q.rank);
  o_shape.back() = v.shape[static_cast<std::size_t>(v.rank - 1)];
  out.o_shape = tuple_of(o_shape);
  out.lse_shape = packed ? tuple_of({at(2), at(1)}) : tuple_of({at(0), at(2), at(1)});
  out.dense = {contiguous(q), contiguous(k), contiguous(v)};
  out.like_q = out.dense[0] && p.head_dim_v == 0;
  out.planned = find_plan(std::move(request));
  if (!out.planned) return out;
  out.workspace_bytes = out.planned->plan.workspace_bytes();
  out.serial = out.planned->serial;
  return out;
}

// `scalars`: max_seqlen_q, max_seqlen_k, then the values of Options.
nb::object prepare(Call& call, nb::handle tensors, nb::handle scalars) {
  constexpr std::size_t kLengths = 2;
  std::array<nb::handle, kLengths + Options::kCount> values;
  if (PyTuple_Size(scalars.ptr()) != static_cast<Py_ssize_t>(values.size())) throw nb::type_error("scalars");
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = PyTuple_GetItem(scalars.ptr(), static_cast<Py_ssize_t>(i));
  call.longest_q = std::max<int64_t>(1, read_integer("max_seqlen_q", values[0]));
  call.longest_k = std::max<int64_t>(0, read_integer("max_seqlen_k", values[1]));
  std::array<nb::handle, Options::kCount> options;
  std::copy(values.begin() + kLengths, values.end(), options.begin());
  call.options = read_options(options);
  if (!tensors.is_none()) call.sides = read_sides(tensors);
  if (!tensors.is_none() || call.q.array.rank == 3 || call.k.array.rank == 3) check_sides(call.sides, call.q, call.k);

  Key key = key_of(call);
  Kept& map = kept();
  if (const auto found = map.find(key); found != map.end()) return found->second;
  nb::object prepared = nb::cast(make(call, key.kernel));
  if (map.size() >= kMaxPlans) map.clear();
  map.emplace(std::move(key), prepared);
  return prepared;
}

nb::object prepare_forward(nb::handle q, nb::handle k, nb::handle v, nb::handle tensors, nb::handle scalars,
                           bool with_lse, int threads) {
  Call call{.backward = false, .flags = with_lse ? unsigned{kLse} : 0, .threads = threads};
  call.q = read_tensor("q", q);
  call.k = read_tensor("k", k);
  call.v = read_tensor("v", v);
  require_alike(call.k, call.q);
  require_alike(call.v, call.q);
  if (call.q.device >= 0) call.threads = 0;
  return prepare(call, tensors, scalars);
}

nb::object prepare_backward(nb::handle dout, nb::handle q, nb::handle k, nb::handle v, nb::handle tensors,
                            nb::handle scalars, bool with_dlse, bool with_dbias, bool with_dsink, int threads) {
  const unsigned flags = (with_dlse ? kDlse : 0u) | (with_dbias ? kDbias : 0u) | (with_dsink ? kDsink : 0u);
  Call call{.backward = true, .flags = flags, .threads = threads};
  call.q = read_tensor("q", q);
  call.k = read_tensor("k", k);
  call.v = read_tensor("v", v);
  call.dout = read_tensor("dout", dout);
  for (const Tensor* tensor : {&call.k, &call.v, &call.dout}) require_alike(*tensor, call.q);
  if (call.q.device >= 0) call.threads = 0;
  return prepare(call, tensors, scalars);
}

// --- the run ---------------------------------------------------------------------------------------------------------

template <class Pointer>
Pointer address_of(const char* name, nb::handle tensor) {
  if (tensor.is_none()) return nullptr;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): tensors hand addresses as integers
  return reinterpret_cast<Pointer>(read_tensor(name, tensor).array.address);
}

void take_sides(Buffers& b, const Sides& sides) {
  using Int32 = const std::int32_t*;
  b.cu_seqlens_q = sides.at<Int32>(kCuQ);
  b.cu_seqlens_k = sides.at<Int32>(kCuK);
  b.seqused_q = sides.at<Int32>(kUsedQ);
  b.seqused_k = sides.at<Int32>(kUsedK);
  b.bias = sides.at<const void*>(kBias);
  b.alibi_slopes = sides.at<const float*>(kAlibi);
  b.sinks = sides.at<const float*>(kSink);
  b.document_q = sides.at<Int32>(kDocumentQ);
  b.document_k = sides.at<Int32>(kDocumentK);
  b.prefix = sides.at<Int32>(kPrefixes);
  b.dropout_seed = sides.at<const std::uint64_t*>(kSeed);
  b.dropout_offset = sides.at<const std::uint64_t*>(kOffset);
}

void run_on(const Prepared& prepared, Address stream, Address workspace, const Buffers& buffers) {
  if (!prepared.planned) return;
  const nb::gil_scoped_release released;
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  run(prepared.planned->plan, buffers, {reinterpret_cast<void*>(workspace), prepared.workspace_bytes},
      Stream(reinterpret_cast<CUstream_st*>(stream)));  // NOLINT(performance-no-int-to-ptr)
}

void run_forward(const Prepared& prepared, Address stream, Address workspace, nb::handle q, nb::handle k, nb::handle v,
                 nb::handle o, nb::handle lse, nb::handle tensors) {
  Buffers b;
  b.q = address_of<const void*>("q", q);
  b.k = address_of<const void*>("k", k);
  b.v = address_of<const void*>("v", v);
  b.o = address_of<void*>("o", o);
  b.lse = address_of<float*>("lse", lse);
  if (!tensors.is_none()) take_sides(b, read_sides(tensors));
  run_on(prepared, stream, workspace, b);
}

Shape shape_of(nb::handle tuple) {
  Shape shape{.rank = static_cast<int>(PyTuple_Size(tuple.ptr())), .extent = {}};
  for (int i = 0; i < shape.rank; ++i)
    shape.extent[static_cast<std::size_t>(i)] = PyLong_AsLongLong(PyTuple_GetItem(tuple.ptr(), i));
  return shape;
}

void run_backward(const Prepared& prepared, Address stream, Address workspace, nb::handle dout, nb::handle dlse,
                  nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse, nb::handle tensors,
                  nb::handle dq, nb::handle dk, nb::handle dv, nb::handle dbias, nb::handle dsink) {
  const Tensor first = read_tensor("q", q), out = read_tensor("o", o), sums = read_tensor("lse", lse);
  require_side(out, first.element, first.device, {shape_of(prepared.o_shape)});
  require_side(sums, Element::fp32, first.device, {shape_of(prepared.lse_shape)});
  Buffers b;
  b.q = address_of<const void*>("q", q);
  b.k = address_of<const void*>("k", k);
  b.v = address_of<const void*>("v", v);
  b.o = address_of<void*>("o", o);
  b.lse = address_of<float*>("lse", lse);
  if (!tensors.is_none()) take_sides(b, read_sides(tensors));
  b.dout = address_of<const void*>("dout", dout);
  if (!dlse.is_none()) {
    require_side(read_tensor("dlse", dlse), Element::fp32, first.device, {shape_of(prepared.lse_shape)});
    b.dlse = address_of<const float*>("dlse", dlse);
  }
  b.dq = address_of<void*>("dq", dq);
  b.dk = address_of<void*>("dk", dk);
  b.dv = address_of<void*>("dv", dv);
  b.dbias = address_of<float*>("dbias", dbias);
  b.dsink = address_of<float*>("dsink", dsink);
  run_on(prepared, stream, workspace, b);
}

}  // namespace

void add_calls(nb::module_& m) {
  nb::class_<Prepared>(m, "Prepared")
      .def_ro("o_shape", &Prepared::o_shape)
      .def_ro("lse_shape", &Prepared::lse_shape)
      .def_ro("like_q", &Prepared::like_q)
      .def_ro("workspace_bytes", &Prepared::workspace_bytes)
      .def_ro("serial", &Prepared::serial)
      .def_prop_ro("dense",
                   [](const Prepared& self) { return nb::make_tuple(self.dense[0], self.dense[1], self.dense[2]); })
      .def_prop_ro("empty", [](const Prepared& self) { return self.planned == nullptr; })
      .def_prop_ro("kernel", [](const Prepared& self) { return std::string(self.planned->plan.kernel()); })
      .def_prop_ro("problem", [](const Prepared& self) { return to_string(self.planned->plan.problem()); });
  m.def("attach", &attach, nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
  m.def("forward", &prepare_forward, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(),
        nb::arg());
  m.def("backward", &prepare_backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("run_forward", &run_forward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg().none());
  m.def("run_backward", &run_backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
        nb::arg().none());
  m.def("forget_calls", [] { kept().clear(); });  // before Python ends, so that nothing is found alive then
  nb::module_::import_("atexit").attr("register")(m.attr("forget_calls"));
}

}  // namespace fattn::python
