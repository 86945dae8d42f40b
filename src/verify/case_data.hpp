// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fattn/attention.hpp"
#include "verify/case_options.hpp"
#include "verify/tensor.hpp"

namespace fattn::verify {

// How test data is drawn. The Problem and these give the same data everywhere.
struct DataOptions {
  std::uint64_t seed = 1;
  double q_scale = 1;     // multiplies q: large scores, rows whose maximum jumps
  double k_ramp = 0;      // key j of n is multiplied by 1 + k_ramp * j / n: the maximum grows along the keys
  double bias_shift = 0;  // added to every bias
  // Packed: lengths of the sequences; seqused. Empty: drawn, with empty sequences among them.
  std::vector<std::int64_t> lengths_q = {}, lengths_k = {}, used_q = {}, used_k = {};

  friend bool operator==(const DataOptions&, const DataOptions&) = default;
};

// Where an operand's rows lie. Packed: batch 1 and total rows.
Index4 extents_of(const Problem& problem, Operand operand);
Index4 strides_of(const Problem& problem, Operand operand);
Index4 lse_extents(const Problem& problem);
Index4 bias_extents(const Problem& problem);

// The inputs of one run. Masters in host memory hold the data; place() makes copies in the memory of the device,
// between guard zones. Elements that no kernel may read (past the lengths, between strides, keys that no query sees)
// are NaN.
class CaseData {
 public:
  CaseData(const Problem& problem, const Device& device, const DataOptions& options = {});
  CaseData(CaseData&&) = default;
  CaseData& operator=(CaseData&&) = default;

  const Problem& problem() const { return problem_; }
  const Device& device() const { return device_; }
  const DataOptions& options() const { return options_; }

  // "q", "k", "v", "dout", "bias", ... as in Buffers; throws Error(invalid_argument) for one that the Problem does not
  // have.
  Tensor& tensor(std::string_view name);
  const Tensor& tensor(std::string_view name) const;
  // An array of integers, by its name in Buffers. Replacing one does not change which keys were drawn as NaN.
  template <class Integer>
  void set_array(std::string_view name, const std::vector<Integer>& values) {
    set_bytes(name, values.data(), values.size() * sizeof(Integer));
  }
  const std::vector<std::byte>& array(std::string_view name) const;
  // Pairs that take part, over all query heads. Counted one by one where the mask is read from data.
  double kept_pairs(std::int64_t batch) const;
  // The forward's results, which the backward reads: o as fp64 values in logical order, lse as fp32.
  void set_forward(const Tensor& o, const Tensor& lse);

  // visit(row of o or q, row of lse) for each query that takes part and each head.
  void for_each_query_row(const std::function<void(std::int64_t, std::int64_t)>& visit) const;

  std::int64_t length_q(std::int64_t batch) const { return lengths_q_[static_cast<std::size_t>(batch)]; }
  std::int64_t length_k(std::int64_t batch) const { return lengths_k_[static_cast<std::size_t>(batch)]; }

  Buffers masters() const;                    // host memory, aligned to 16 bytes
  void place();                               // after the last change to a master
  Buffers placed() const;                     // the device's memory
  bool is_placed() const { return placed_; }  // and no master was handed out for change since
  std::string damage() const;                 // names the placed inputs that changed; empty: none

 private:
  struct Input {
    Tensor tensor;
    void (*attach)(Buffers&, void*);
    std::unique_ptr<PlacedMemory> placed;
  };
  struct ArrayInput {
    std::string name;
    std::vector<std::byte> bytes;
    std::int64_t element_bytes;
    void (*attach)(Buffers&, void*);
    std::unique_ptr<PlacedMemory> placed;
  };

  Tensor& add(Tensor tensor, void (*attach)(Buffers&, void*));
  template <class Integer>
  void add_array(std::string name, const std::vector<Integer>& values, void (*attach)(Buffers&, void*));
  void set_bytes(std::string_view name, const void* from, std::size_t bytes);
  void draw_lengths();
  void draw_arrays();
  void draw_descales();
  void draw_tensors();
  void draw_bias();
  void draw_rows(Operand operand, double factor, void (*attach)(Buffers&, void*));
  std::vector<bool> seen_keys(std::int64_t batch, std::int64_t head_kv) const;
  SequenceRows rows_of(std::int64_t batch) const;

  Problem problem_;
  Device device_;
  DataOptions options_;
  std::vector<std::int64_t> lengths_q_, lengths_k_;  // what takes part
  std::vector<std::int64_t> begin_q_, begin_k_;      // first rows, when packed
  std::deque<Input> inputs_;
  std::deque<ArrayInput> arrays_;
  OptionArrays drawn_;
  bool placed_ = false;
};

// The outputs of one run, poisoned with NaN between guard zones.
class CaseOutputs {
 public:
  CaseOutputs(const Problem& problem, const Device& device);
  void attach(Buffers& buffers) const;
  void fetch();                // copies the results to the host
  std::string damage() const;  // after fetch: what was written outside the outputs' elements; empty: nothing
  std::deque<Tensor>& tensors() { return tensors_; }
  const std::deque<Tensor>& tensors() const { return tensors_; }
  const Tensor& tensor(std::string_view name) const;

 private:
  void add(Tensor tensor, void (*attach)(Buffers&, void*), std::int64_t alignment);

  Device device_;
  std::deque<Tensor> tensors_;
  std::deque<std::unique_ptr<PlacedMemory>> placed_;
  std::deque<void (*)(Buffers&, void*)> attach_;
};

}  // namespace fattn::verify
