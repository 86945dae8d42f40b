// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"

#include <nlohmann/json.hpp>

#include "io/support.hpp"

namespace fattn::io {
namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return file + header + std::string(data_bytes, '\x01');
}

SafetensorsHeader open(const std::string& file) {
  const MemorySource source("a.safetensors", std::as_bytes(std::span(file)));
  return SafetensorsReader(source).header();
}

void refused(const std::string& file, std::initializer_list<std::string_view> words) {
  expect_error(Status::io_error, words, [&] { open(file); });
}

// Built with append(): GCC 12 warns without reason about "text" + std::string().
std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  std::string text;
  text.append("\"").append(name).append("\":{\"dtype\":\"").append(dtype).append("\",\"shape\":");
  return text.append(shape).append(",\"data_offsets\":").append(offsets).append("}");
}

std::string object(const std::vector<std::string>& members) {
  std::string text(1, '{');
  for (const std::string& member : members) text.append(text.size() > 1 ? "," : "").append(member);
  return text.append("}");
}

TEST(Safetensors, ReadsTheShippedFile) {
  const FileSource source(std::string(FATTN_SOURCE_DIR) + "/data/smollm2_layer10_2048.safetensors");
  const SafetensorsReader reader(source);
  ASSERT_EQ(reader.header().tensors.size(), 3U);
  const TensorInfo* q = reader.find("q");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->element, Element::bf16);
  EXPECT_EQ(q->shape, (std::vector<std::int64_t>{1, 2048, 9, 64}));
  EXPECT_EQ(reader.read(*q).data.size(), 2048U * 9 * 64 * 2);
  EXPECT_EQ(reader.header().metadata.at("softmax_scale"), "0.125");
  EXPECT_EQ(reader.find("dout"), nullptr);
}

TEST(Safetensors, RoundTripsEveryTypeAndRank) {
  std::map<std::string, Array> tensors;
  int n = 0;
  for (int e = 0; e <= static_cast<int>(Element::boolean); ++e) {
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{{}, {7}, {0}, {3, 0, 2}, {1, 5, 3, 2}}) {
      const auto element = static_cast<Element>(e);
      EXPECT_EQ(element_of_safetensors(safetensors_name(element)), element);
      Array array{element, shape, std::vector<std::byte>(*byte_size(element, shape))};
      for (std::size_t i = 0; i < array.data.size(); ++i) array.data[i] = static_cast<std::byte>(i * 37 + e);
      tensors["tensor \"" + std::to_string(n++) + "\""] = array;
    }
  }
  MemorySink sink;
  write_safetensors(sink, tensors, {{"note", "two\nlines"}});
  const MemorySource source("a.safetensors", sink.bytes);
  const SafetensorsReader reader(source);
  ASSERT_EQ(reader.header().tensors.size(), tensors.size());
  EXPECT_EQ(reader.header().metadata, (std::map<std::string, std::string>{{"note", "two\nlines"}}));
  for (const auto& [name, array] : tensors) {
    const TensorInfo* info = reader.find(name);
    ASSERT_NE(info, nullptr) << name;
    const Array back = reader.read(*info);
    EXPECT_EQ(back.element, array.element);
    EXPECT_EQ(back.shape, array.shape);
    EXPECT_EQ(back.data, array.data);
    EXPECT_EQ(info->begin % static_cast<std::uint64_t>(size_of(info->element)), 0U) << name;
  }
}

TEST(Safetensors, WritesAlignedTensorsInJson) {
  MemorySink sink;
  write_safetensors(sink, {{"a", {Element::u8, {3}, std::vector<std::byte>(3)}},
                           {"b", {Element::f64, {2}, std::vector<std::byte>(16)}},
                           {"c", {Element::bf16, {1}, std::vector<std::byte>(2)}}});
  const SafetensorsHeader header =
      open(std::string(reinterpret_cast<const char*>(sink.bytes.data()), sink.bytes.size()));
  for (const TensorInfo& info : header.tensors) {
    EXPECT_EQ(info.begin % static_cast<std::uint64_t>(size_of(info.element)), 0U) << info.name;
  }
  EXPECT_EQ(header.tensors.front().name, "b");
  const auto length = std::to_integer<std::size_t>(sink.bytes[0]);  // shorter than 256 here
  EXPECT_EQ(length % 8, 0U);
  const auto json = nlohmann::json::parse(reinterpret_cast<const char*>(sink.bytes.data()) + 8,
                                          reinterpret_cast<const char*>(sink.bytes.data()) + 8 + length);
  EXPECT_EQ(json["c"]["dtype"], "BF16");
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(open(file_of("{}", 0)).tensors.empty());
  EXPECT_EQ(open(file_of(object({tensor("q", "F32", "[2]", "[0,8]")}) + "     ", 8)).tensors.size(), 1U);
  // Order in the header does not matter; empty tensors may sit anywhere between the others.
  const std::string text = object({tensor("b", "U8", "[4]", "[4,8]"), tensor("a", "U8", "[4]", "[0,4]"),
                                   tensor("e", "F32", "[0,9]", "[4,4]"), tensor("s", "F32", "[]", "[8,12]")});
  const SafetensorsHeader header = open(file_of(text, 12));
  ASSERT_EQ(header.tensors.size(), 4U);
  EXPECT_EQ(header.tensors[0].name, "a");
}

TEST(Safetensors, RefusesBrokenFiles) {
  refused("", {"a.safetensors", "0 bytes long"});
  refused("1234567", {"7 bytes long"});
  refused(file_of("{}", 0).substr(0, 9), {"truncated", "header of 2 bytes"});
  refused(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), {"18446744073709551615"});
  std::string large = file_of("{}", 0);
  large[3] = '\x07';  // 117 MB
  refused(large, {"at most 100000000"});
  refused(file_of("", 0), {"does not begin with '{'"});
  refused(file_of(" {}", 0), {"does not begin with '{'"});
  refused(file_of("\xef\xbb\xbf{}", 0), {"does not begin with '{'"});
  refused(file_of("[]", 0), {"does not begin with '{'"});
  refused(file_of("{\"q\":", 0), {"no JSON"});
  refused(file_of("{} {}", 0), {"no JSON"});
  refused(file_of("{\"\xff\":1}", 0), {"no JSON"});
  refused(file_of(object({tensor("q", "F32", "[NaN]", "[0,8]")}), 8), {"no JSON"});
  refused(file_of(std::string("{\"q\0\":1}", 8), 0), {"no JSON"});
}

TEST(Safetensors, RefusesWrongSizesAndOffsets) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return file_of(object({tensor("q", dtype, shape, offsets)}), 8);
  };
  refused(one("F32", "[2]", "[0,9]"), {"\"q\"", "[0, 9] are out of range", "8 bytes"});
  refused(one("F32", "[2]", "[8,0]"), {"out of range"});
  refused(one("F32", "[2]", "[0,18446744073709551615]"), {"out of range"});
  refused(one("F32", "[2]", "[18446744073709551608,0]"), {"out of range"});
  refused(one("F32", "[3]", "[0,8]"), {"F32 [3] takes 12 bytes", "span 8"});
  refused(one("F32", "[1]", "[0,8]"), {"takes 4 bytes"});
  refused(one("F32", "[]", "[0,8]"), {"takes 4 bytes"});
  refused(one("F32", "[0]", "[0,8]"), {"takes 0 bytes"});
  refused(one("F32", "[1]", "[0,4]"), {"4 bytes after the last tensor"});
  refused(one("F32", "[1]", "[4,8]"), {"bytes 0 to 4 before"});
  refused(one("F32", "[4611686018427387904,4]", "[0,8]"), {"overflows"});
  refused(one("F32", "[4294967296,4294967296]", "[0,0]"), {"overflows"});
  refused(one("F32", "[9223372036854775808]", "[0,8]"), {"cannot be 9223372036854775808"});
  refused(one("F32", "[18446744073709551616]", "[0,8]"), {"cannot be 18446744073709551616"});
  refused(one("F32", "[-2]", "[0,8]"), {"cannot be -2"});
  refused(one("F32", "[2.0]", "[0,8]"), {"cannot be 2.0"});
  refused(one("F32", "[\"2\"]", "[0,8]"), {"cannot be \"2\""});
  refused(one("F32", "[null]", "[0,8]"), {"cannot be null"});
  refused(one("F32", "2", "[0,8]"), {"\"shape\" cannot be 2"});
  refused(one("F32", "[2]", "[0]"), {"1 values"});
  refused(one("F32", "[2]", "[0,8,8]"), {"more than 2"});
  refused(one("F33", "[2]", "[0,8]"), {"unknown dtype \"F33\""});
  refused(one("f32", "[2]", "[0,8]"), {"unknown dtype"});
  refused(file_of(object({tensor("a", "U8", "[6]", "[0,6]"), tensor("b", "U8", "[4]", "[4,8]")}), 8),
          {"\"a\" and \"b\" overlap"});
  refused(file_of(object({tensor("a", "U8", "[8]", "[0,8]"), tensor("b", "U8", "[8]", "[0,8]")}), 8), {"overlap"});
  refused(file_of(object({tensor("a", "U8", "[2]", "[0,2]"), tensor("b", "U8", "[4]", "[4,8]")}), 8),
          {"bytes 2 to 4 before tensor \"b\""});
}

TEST(Safetensors, RefusesDuplicatesAndOddShapes) {
  const std::string q = tensor("q", "F32", "[2]", "[0,8]");
  refused(file_of(object({q, q}), 8), {"\"q\" occurs twice"});
  refused(file_of(object({q, tensor("\\u0071", "F32", "[2]", "[0,8]")}), 8), {"\"q\" occurs twice"});
  refused(file_of("{\"__metadata__\":{},\"__metadata__\":{}}", 0), {"occurs twice"});
  refused(file_of("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0), {"__metadata__", "\"a\" occurs twice"});
  refused(file_of("{\"__metadata__\":{\"a\":1}}", 0), {"__metadata__", "cannot be 1"});
  refused(file_of("{\"__metadata__\":[]}", 0), {"__metadata__"});
  refused(file_of("{\"q\":1}", 0), {"\"q\" is 1, not an object"});
  refused(file_of("{\"q\":{}}", 0), {"dtype is missing"});
  refused(file_of("{\"q\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8),
          {"\"dtype\" occurs twice"});
  refused(file_of("{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"more\":1}}", 8), {"unknown key"});
  refused(file_of("{\"q\":{\"dtype\":[\"F32\"],\"shape\":[2],\"data_offsets\":[0,8]}}", 8), {"an array"});
  refused(file_of("{\"q\":{\"dtype\":{\"F32\":{}},\"shape\":[2],\"data_offsets\":[0,8]}}", 8), {"an object"});
  refused(file_of("{\"q\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", 8), {"an array"});
  std::string dimensions = "[1";
  for (int i = 0; i < 40; ++i) dimensions += ",1";
  refused(file_of(object({tensor("q", "F32", dimensions + "]", "[0,4]")}), 4), {"more than 32"});
}

TEST(Safetensors, RefusesDeepNestingWithoutRecursion) {
  refused(file_of("{\"q\":" + std::string(1'000'000, '['), 0), {"an array"});
  refused(file_of("{\"q\":{\"shape\":" + std::string(1'000'000, '['), 0), {"an array"});
  std::string nested;
  for (int i = 0; i < 100'000; ++i) nested += "{\"a\":";
  refused(file_of(nested, 0), {"unknown key"});
}

TEST(Safetensors, EscapesNamesInMessages) {
  refused(file_of(object({tensor("\\u001b[31mred\\u0000", "F32", "[3]", "[0,8]")}), 8), {"\\x1b[31mred\\x00"});
  refused(file_of(object({tensor(std::string(5000, 'x'), "F32", "[3]", "[0,8]")}), 8), {"xxx...\""});
}

}  // namespace
}  // namespace fattn::io
