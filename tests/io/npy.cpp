// SPDX-License-Identifier: Apache-2.0
#include "io/npy.hpp"

#include <cstring>

#include "io/support.hpp"

namespace fattn::io {
namespace {

std::string file_of(std::string header, std::size_t data_bytes, int version = 1) {
  std::string file = "\x93NUMPY";
  file += {static_cast<char>(version), '\0'};
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return file + header + std::string(data_bytes, '\x01');
}

Array read(const std::string& file) {
  const MemorySource source("a.npy", std::as_bytes(std::span(file)));
  return read_npy(source);
}

void refused(const std::string& file, std::initializer_list<std::string_view> words) {
  expect_error(Status::io_error, words, [&] { read(file); });
}

// The bytes that numpy 1.24 writes for np.arange(6, dtype='f4').reshape(2, 3).
TEST(Npy, ReadsWhatNumpyWrites) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  header += std::string(117 - header.size(), ' ') + "\n";
  std::string file = file_of(header, 0);
  ASSERT_EQ(file.size(), 128U);
  for (int i = 0; i < 6; ++i) {
    const auto value = static_cast<float>(i);
    file.append(reinterpret_cast<const char*>(&value), 4);
  }
  const Array array = read(file);
  EXPECT_EQ(array.element, Element::f32);
  EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 3}));
  float last = 0;
  std::memcpy(&last, array.data.data() + 20, 4);
  EXPECT_EQ(last, 5.0F);

  MemorySink sink;
  write_npy(sink, array);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(sink.bytes.data()), sink.bytes.size()), file);
}

TEST(Npy, RoundTripsEveryTypeAndRank) {
  for (const Element element : {Element::f64, Element::f32, Element::f16, Element::i64, Element::i32, Element::i16,
                                Element::i8, Element::u64, Element::u32, Element::u16, Element::u8, Element::boolean}) {
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{{}, {7}, {0}, {3, 0, 2}, {1, 5, 3, 2}}) {
      Array array{element, shape, std::vector<std::byte>(*byte_size(element, shape))};
      for (std::size_t i = 0; i < array.data.size(); ++i) array.data[i] = static_cast<std::byte>(i * 37 + 1);
      MemorySink sink;
      write_npy(sink, array);
      EXPECT_EQ((sink.bytes.size() - array.data.size()) % 64, 0U);
      const Array back = read_npy(MemorySource("a.npy", sink.bytes));
      EXPECT_EQ(back.element, element);
      EXPECT_EQ(back.shape, shape);
      EXPECT_EQ(back.data, array.data);
    }
  }
}

TEST(Npy, ReadsVersions2And3) {
  for (const int version : {2, 3}) {
    const Array array = read(file_of("{'descr': '<f2', 'fortran_order': False, 'shape': (5,), }\n", 10, version));
    EXPECT_EQ(array.shape, (std::vector<std::int64_t>{5}));
  }
}

TEST(Npy, AcceptsOtherSpellings) {
  const Array array = read(file_of("{\"shape\":(2L,3L),\"fortran_order\":False,\"descr\":\"=i4\"}", 24));
  EXPECT_EQ(array.element, Element::i32);
  EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 3}));
}

TEST(Npy, TurnsFortranOrderRowMajor) {
  std::string file = file_of("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 2), }", 0);
  // Element (i, j, k) holds 100 i + 10 j + k; column-major, i runs fastest.
  for (int k = 0; k < 2; ++k) {
    for (int j = 0; j < 3; ++j) {
      for (int i = 0; i < 2; ++i) file += static_cast<char>(100 * i + 10 * j + k);
    }
  }
  const Array array = read(file);
  std::size_t n = 0;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 2; ++k) EXPECT_EQ(std::to_integer<int>(array.data[n++]), 100 * i + 10 * j + k);
    }
  }
}

TEST(Npy, RefusesBrokenFiles) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  refused("", {"a.npy", "not an npy file"});
  refused("PK\x03\x04 a zip file", {"not an npy file"});
  refused(file_of(good, 23), {"[2, 3]", "24 bytes", "holds 23"});
  refused(file_of(good, 25), {"holds 25"});
  refused(file_of(good, 24).substr(0, 40), {"truncated"});
  refused(file_of(good, 24).substr(0, 9), {"not an npy file"});
  refused(file_of(good, 24, 4), {"version 4.0"});
  refused(file_of(good, 24, 0), {"version 0.0"});
  std::string huge = file_of(good, 24, 2);
  huge[11] = '\x7f';
  refused(huge, {"at most 65536"});
}

TEST(Npy, RefusesHostileHeaders) {
  const auto with = [](const std::string& descr, const std::string& shape) {
    return file_of("{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + "}", 24);
  };
  refused(with("'>f4'", "(6,)"), {"big-endian"});
  refused(with("'|V2'", "(12,)"), {"|V2", "safetensors for bf16"});
  refused(with("'<c8'", "(3,)"), {"<c8"});
  refused(with("'|O'", "(3,)"), {"|O"});
  refused(with("''", "(3,)"), {"not supported"});
  refused(with("[('a', '<f4')]", "(6,)"), {"records"});
  refused(with("'<f4'", "(-6,)"), {"extent expected"});
  refused(with("'<f4'", "(6.0,)"), {"')' expected"});
  refused(with("'<f4'", "(nan,)"), {"extent expected"});
  refused(with("'<f4'", "6"), {"'(' expected"});
  refused(with("'<f4'", "(6,"), {"extent expected"});
  refused(with("'<f4'", "((6,),)"), {"extent expected"});
  refused(with("'<f4'", "(99999999999999999999,)"), {"overflows"});
  refused(with("'<f4'", "(4611686018427387904, 4)"), {"overflows"});
  refused(with("'<f4'", "(4294967296, 4294967296, 4294967296)"), {"overflows"});
  refused(with("'<f4'", "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)"), {"dimensions"});
  refused(with("'<f4", "(6,)"), {"npy header"});
  refused(with("'<f4', 'descr': '<f4'", "(6,)"), {"'descr' occurs twice"});
  refused(with("'<f4', 'x\x1b[31m': 1", "(6,)"), {"unknown key \"x\\x1b[31m\""});
  refused(file_of("{'descr': '<f4', 'shape': (6,)}", 24), {"'fortran_order' is missing"});
  refused(file_of("{'descr': '<f4', 'fortran_order': Maybe, 'shape': (6,)}", 24), {"neither True nor False"});
  refused(file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} exit()", 24), {"after the dictionary"});
  refused(file_of("", 24), {"'{' expected"});
  refused(file_of(std::string(1000, '{'), 24), {"npy header"});
}

TEST(Npy, CannotWriteBf16) {
  MemorySink sink;
  expect_error(Status::invalid_argument, {"BF16", "safetensors"}, [&] {
    write_npy(sink, {Element::bf16, {2}, std::vector<std::byte>(4)});
  });
  EXPECT_TRUE(sink.bytes.empty());
}

}  // namespace
}  // namespace fattn::io
