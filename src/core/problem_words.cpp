// SPDX-License-Identifier: Apache-2.0
#include "core/problem_words.hpp"

#include <array>
#include <charconv>

#include "core/extents.hpp"
#include "core/message.hpp"

namespace fattn {
namespace {

using std::int64_t;
using Text = std::optional<std::string>;

std::string text(int64_t value) { return std::to_string(value); }

// The shortest digits that give the same double back.
std::string text(double value) {
  if (value == 0) return "0";  // -0 equals it, and equal problems have equal texts
  std::array<char, 32> digits;
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

template <class Value>
Text unless(bool is_default, Value value) {
  return is_default ? Text() : Text(text(value));
}

template <auto field>
constexpr Word number(std::string_view name, std::string_view usage) {
  return {name, WordForm::number, usage, [](Problem& p, WordValue& v) { p.*field = v.integer(); },
          [](const Problem& p) { return Text(text(p.*field)); }};
}

template <auto field>
constexpr Word total(std::string_view name, std::string_view usage) {
  return {name, WordForm::number, usage, [](Problem& p, WordValue& v) { p.*field = v.integer(); },
          [](const Problem& p) { return p.*field ? Text(text(*(p.*field))) : Text(); }};
}

template <auto field>
constexpr Word flag(std::string_view name) {
  return {name, WordForm::flag, name, [](Problem& p, WordValue&) { p.*field = true; },
          [](const Problem& p) { return p.*field ? Text("") : Text(); }};
}

template <auto field>
constexpr Word mask_flag(std::string_view name) {
  return {name, WordForm::flag, name, [](Problem& p, WordValue&) { p.mask.*field = true; },
          [](const Problem& p) { return p.mask.*field ? Text("") : Text(); }};
}

template <Operand operand>
constexpr Word stride_word(std::string_view name, std::string_view usage) {
  return {name, WordForm::value, usage,
          [](Problem& p, WordValue& v) {
            Strides& s = given_strides(p.strides, operand).emplace();
            s.batch = v.integer();
            s.seqlen = v.integer();
            s.head = v.integer();
            s.dim = v.integer();
          },
          [](const Problem& p) {
            const auto& s = given_strides(p.strides, operand);
            if (!s) return Text();
            return Text(fmt::format("{},{},{},{}", s->batch, s->seqlen, s->head, s->dim));
          }};
}

KvCache& cache_of(Problem& p) { return p.kv_cache ? *p.kv_cache : p.kv_cache.emplace(); }

void read_seqused(Problem& p, WordValue& v) {
  static constexpr std::array<std::string_view, 3> kSides = {"q", "k", "qk"};
  const std::size_t side = v.choice(kSides);
  p.seqused_q = side != 1;
  p.seqused_k = side != 0;
}
Text write_seqused(const Problem& p) {
  if (!p.seqused_q && !p.seqused_k) return {};
  return std::string(p.seqused_q ? "q" : "") + (p.seqused_k ? "k" : "");
}

void read_block_sparse(Problem& p, WordValue& v) {
  BlockSparse& blocks = p.mask.block_sparse;
  blocks.block_q = v.integer();
  blocks.block_k = v.integer();
  static constexpr std::array<std::string_view, 2> kTables = {"batch", "heads"};
  while (!v.done()) {
    bool& each = v.choice(kTables) == 0 ? blocks.per_batch : blocks.per_head;
    if (each) v.refuse();
    each = true;
  }
}
Text write_block_sparse(const Problem& p) {
  const BlockSparse& blocks = p.mask.block_sparse;
  if (blocks == BlockSparse{}) return {};
  return fmt::format("{},{}{}{}", blocks.block_q, blocks.block_k, blocks.per_batch ? ",batch" : "",
                     blocks.per_head ? ",heads" : "");
}

void read_bias(Problem& p, WordValue& v) {
  Bias& bias = p.score.bias.emplace();
  const std::string_view extents = v.item();
  if (extents.empty()) v.refuse();
  for (const char c : extents == "1" ? std::string_view() : extents) {
    bool* const extent = c == 'b' ? &bias.batch : c == 'h' ? &bias.heads : c == 'q' ? &bias.queries : &bias.keys;
    if (*extent || (extent == &bias.keys && c != 'k')) v.refuse();
    *extent = true;
  }
  if (!v.done()) bias.dtype = v.dtype();
}
Text write_bias(const Problem& p) {
  if (!p.score.bias) return {};
  const Bias& bias = *p.score.bias;
  std::string value;
  if (bias.batch) value += 'b';
  if (bias.heads) value += 'h';
  if (bias.queries) value += 'q';
  if (bias.keys) value += 'k';
  if (value.empty()) value += '1';
  if (bias.dtype != DType::fp32) value += fmt::format(",{}", to_string(bias.dtype));
  return value;
}

void read_alibi(Problem& p, WordValue& v) {
  static constexpr std::array<std::string_view, 1> kPer = {"batch"};
  p.score.alibi = v.done() ? Alibi::per_head : Alibi::per_batch_and_head;
  if (!v.done()) v.choice(kPer);
}
Text write_alibi(const Problem& p) {
  if (p.score.alibi == Alibi::none) return {};
  return p.score.alibi == Alibi::per_head ? "" : "batch";
}

constexpr std::array<std::string_view, 4> kDescales = {"none", "tensor", "head", "block"};
void read_descale(Problem& p, WordValue& v) {
  p.descale.kind = static_cast<DescaleKind>(1 + v.choice(std::span(kDescales).subspan(1)));  // none is not said
  if (p.descale.kind != DescaleKind::block) return;
  p.descale.block_q = v.integer();
  p.descale.block_k = v.integer();
}
Text write_descale(const Problem& p) {
  if (p.descale == Descale{}) return {};
  const auto kind = static_cast<std::size_t>(p.descale.kind);
  std::string value(kind < kDescales.size() ? kDescales[kind] : "unknown");
  if (p.descale.kind == DescaleKind::block) value += fmt::format(",{},{}", p.descale.block_q, p.descale.block_k);
  return value;
}

void read_rotary(Problem& p, WordValue& v) {
  static constexpr std::array<std::string_view, 1> kOrder = {"interleaved"};
  cache_of(p).rotary_dim = v.integer();
  if (v.done()) return;
  v.choice(kOrder);
  cache_of(p).rotary_interleaved = true;
}
Text write_rotary(const Problem& p) {
  if (!p.kv_cache || (p.kv_cache->rotary_dim == 0 && !p.kv_cache->rotary_interleaved)) return {};
  return text(p.kv_cache->rotary_dim) + (p.kv_cache->rotary_interleaved ? ",interleaved" : "");
}

constexpr std::array kWords = {
    number<&Problem::batch>("b", "b<batch>"),
    number<&Problem::heads_q>("hq", "hq<heads_q>"),
    number<&Problem::heads_kv>("hk", "hk<heads_kv>"),
    number<&Problem::seqlen_q>("sq", "sq<seqlen_q>"),
    number<&Problem::seqlen_k>("sk", "sk<seqlen_k>"),
    number<&Problem::head_dim>("d", "d<head_dim>"),
    Word{"dv", WordForm::number, "dv<head_dim_v>", [](Problem& p, WordValue& v) { p.head_dim_v = v.integer(); },
         [](const Problem& p) { return unless(p.head_dim_v == 0, p.head_dim_v); }},
    total<&Problem::total_q>("tq", "tq<total_q>"),
    total<&Problem::total_k>("tk", "tk<total_k>"),
    Word{"seqused", WordForm::value, "seqused=q|k|qk", read_seqused, write_seqused},
    Word{"dtype", WordForm::dtype, "fp64|fp32|bf16|fp16|e4m3", [](Problem& p, WordValue& v) { p.dtype = v.dtype(); },
         [](const Problem& p) { return Text(to_string(p.dtype)); }},
    Word{"out", WordForm::value, "out=<dtype>", [](Problem& p, WordValue& v) { p.out_dtype = v.dtype(); },
         [](const Problem& p) { return p.out_dtype ? Text(to_string(*p.out_dtype)) : Text(); }},

    mask_flag<&Mask::causal>("causal"),
    mask_flag<&Mask::causal_top_left>("causal_top_left"),
    Word{"window", WordForm::value, "window=<left>,<right>",
         [](Problem& p, WordValue& v) {
           p.mask.window_left = v.integer();
           p.mask.window_right = v.integer();
         },
         [](const Problem& p) {
           if (p.mask.window_left == -1 && p.mask.window_right == -1) return Text();
           return Text(fmt::format("{},{}", p.mask.window_left, p.mask.window_right));
         }},
    Word{"chunk", WordForm::value, "chunk=<keys>", [](Problem& p, WordValue& v) { p.mask.chunk = v.integer(); },
         [](const Problem& p) { return unless(p.mask.chunk == 0, p.mask.chunk); }},
    mask_flag<&Mask::documents>("documents"),
    mask_flag<&Mask::prefix>("prefix"),
    Word{"block_sparse", WordForm::value, "block_sparse=<block_q>,<block_k>[,batch][,heads]", read_block_sparse,
         write_block_sparse},

    Word{"scale", WordForm::value, "scale=<real>", [](Problem& p, WordValue& v) { p.softmax_scale = v.real(); },
         [](const Problem& p) { return p.softmax_scale ? Text(text(*p.softmax_scale)) : Text(); }},
    Word{"softcap", WordForm::value, "softcap=<real>", [](Problem& p, WordValue& v) { p.score.softcap = v.real(); },
         [](const Problem& p) { return unless(p.score.softcap == 0, p.score.softcap); }},
    Word{"bias", WordForm::value, "bias=<letters of bhqk, or 1>[,<dtype>]", read_bias, write_bias},
    Word{"alibi", WordForm::option, "alibi[=batch]", read_alibi, write_alibi},
    flag<&Problem::sinks>("sinks"),
    Word{"dropout", WordForm::value, "dropout=<real>", [](Problem& p, WordValue& v) { p.dropout = v.real(); },
         [](const Problem& p) { return unless(p.dropout == 0, p.dropout); }},
    Word{"descale", WordForm::value, "descale=tensor|head|block,<block_q>,<block_k>", read_descale, write_descale},

    flag<&Problem::return_lse>("lse"),
    flag<&Problem::return_max_logit>("max_logit"),
    flag<&Problem::dlse>("dlse"),
    flag<&Problem::dbias>("dbias"),
    flag<&Problem::dsink>("dsink"),
    flag<&Problem::deterministic>("deterministic"),
    flag<&Problem::batch_invariant>("batch_invariant"),

    Word{"align", WordForm::value, "align=<bytes>", [](Problem& p, WordValue& v) { p.alignment = v.integer(); },
         [](const Problem& p) { return unless(p.alignment == 16, p.alignment); }},
    stride_word<Operand::q>("q_strides", "q_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::k>("k_strides", "k_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::v>("v_strides", "v_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::o>("o_strides", "o_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::dout>("dout_strides", "dout_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::dq>("dq_strides", "dq_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::dk>("dk_strides", "dk_strides=<batch>,<seqlen>,<head>,<dim>"),
    stride_word<Operand::dv>("dv_strides", "dv_strides=<batch>,<seqlen>,<head>,<dim>"),

    // Each of the words below makes the problem one with a cache; `cache` is printed when none of them is.
    Word{"cache", WordForm::flag, "cache", [](Problem& p, WordValue&) { cache_of(p); },
         [](const Problem& p) { return p.kv_cache == KvCache{} ? Text("") : Text(); }},
    Word{"paged", WordForm::value, "paged=<page_size>,<pages>",
         [](Problem& p, WordValue& v) {
           cache_of(p).page_size = v.integer();
           cache_of(p).pages = v.integer();
         },
         [](const Problem& p) {
           if (!p.kv_cache || (p.kv_cache->page_size == 0 && p.kv_cache->pages == 0)) return Text();
           return Text(fmt::format("{},{}", p.kv_cache->page_size, p.kv_cache->pages));
         }},
    Word{"append", WordForm::value, "append=<keys>", [](Problem& p, WordValue& v) { cache_of(p).append = v.integer(); },
         [](const Problem& p) {
           return p.kv_cache && p.kv_cache->append != 0 ? Text(text(p.kv_cache->append)) : Text();
         }},
    Word{"leftpad", WordForm::flag, "leftpad", [](Problem& p, WordValue&) { cache_of(p).leftpad = true; },
         [](const Problem& p) { return p.kv_cache && p.kv_cache->leftpad ? Text("") : Text(); }},
    Word{"rotary", WordForm::value, "rotary=<dim>[,interleaved]", read_rotary, write_rotary},
};

constexpr std::array<std::string_view, 3> kPassWords = {"fwd", "bwd", "decode"};
constexpr std::array<std::string_view, 5> kDTypeWords = {"fp64", "fp32", "bf16", "fp16", "e4m3"};

}  // namespace

std::span<const Word> words() { return kWords; }
std::span<const std::string_view> pass_words() { return kPassWords; }
std::span<const std::string_view> dtype_words() { return kDTypeWords; }

void WordValue::refuse() const {
  fail(Status::invalid_argument, "word {} of the problem is malformed; nearest: {}", in_quotes(word_), usage_);
}

std::string_view WordValue::item() {
  if (done_) refuse();
  const std::size_t comma = rest_.find(',');
  const std::string_view item = rest_.substr(0, comma);
  done_ = comma == rest_.npos;
  rest_ = done_ ? std::string_view() : rest_.substr(comma + 1);
  return item;
}

std::int64_t WordValue::integer() {
  const std::string_view digits = item();
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::result_out_of_range) {
    fail(Status::invalid_argument, "word {} of the problem has a number beyond 64 bits; nearest: {}", in_quotes(word_),
         digits.starts_with('-') ? INT64_MIN : INT64_MAX);
  }
  if (error != std::errc() || end != digits.data() + digits.size()) refuse();
  return value;
}

double WordValue::real() {
  const std::string_view digits = item();
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::result_out_of_range) {
    fail(Status::invalid_argument, "word {} of the problem has a number beyond fp64; nearest: {}", in_quotes(word_),
         usage_);
  }
  if (error != std::errc() || end != digits.data() + digits.size()) refuse();
  return value;
}

std::size_t WordValue::choice(std::span<const std::string_view> names) {
  const std::string_view name = item();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
  }
  refuse();
}

DType WordValue::dtype() { return static_cast<DType>(choice(kDTypeWords)); }

void WordValue::finish() const {
  if (!done_) refuse();
}

}  // namespace fattn
