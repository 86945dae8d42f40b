// SPDX-License-Identifier: Apache-2.0
#include "io/file.hpp"

#include <sys/stat.h>

#include <array>

#include "io/support.hpp"

namespace fattn::io {
namespace {

TEST(OutputFile, AppearsOnlyWhenCommitted) {
  const TemporaryDirectory directory;
  {
    OutputFile file(directory / "a");
    file.write("text");
    EXPECT_FALSE(std::filesystem::exists(directory / "a"));
    file.commit();
  }
  EXPECT_EQ(read_text(directory / "a"), "text");
  EXPECT_EQ(directory.entries(), 1U);
}

TEST(OutputFile, LeavesTheOldFileWhenDropped) {
  const TemporaryDirectory directory;
  write_text(directory / "a", "old");
  { OutputFile(directory / "a").write("new"); }
  EXPECT_EQ(read_text(directory / "a"), "old");
  EXPECT_EQ(directory.entries(), 1U);
}

TEST(OutputFile, KeepsItsTemporaryWhenMoved) {
  const TemporaryDirectory directory;
  std::vector<OutputFile> files;
  for (const char* name : {"a", "b", "c"}) files.emplace_back(directory / name).write(name);
  for (OutputFile& file : files) file.commit();
  EXPECT_EQ(read_text(directory / "b"), "b");
  EXPECT_EQ(directory.entries(), 3U);
}

TEST(OutputFile, FullDiskIsAnErrorAndLeavesNothing) {
  const TemporaryDirectory directory;
  write_text(directory / "a", "old");
  {
    const FileSizeLimit limit(1000);
    expect_error(Status::io_error, {"cannot write", "a: "}, [&] {
      OutputFile file(directory / "a");
      file.write(std::string(100'000, 'x'));
      file.commit();
    });
  }
  EXPECT_EQ(read_text(directory / "a"), "old");
  EXPECT_EQ(directory.entries(), 1U);
}

TEST(OutputFile, RefusesDevicesAndDirectories) {
  const TemporaryDirectory directory;
  expect_error(Status::io_error, {"/dev/full", "not a regular file"}, [] { OutputFile file("/dev/full"); });
  expect_error(Status::io_error, {"not a regular file"}, [&] { OutputFile file(directory.path()); });
  expect_error(Status::io_error, {"cannot write", "No such file"}, [&] { OutputFile file(directory / "no/where"); });
  EXPECT_EQ(directory.entries(), 0U);
}

TEST(OutputFile, WritesThroughASymbolicLink) {
  const TemporaryDirectory directory;
  write_text(directory / "target", "old");
  std::filesystem::create_symlink("target", directory / "link");
  OutputFile file(directory / "link");
  file.write("new");
  file.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "link"));
  EXPECT_EQ(read_text(directory / "target"), "new");
}

TEST(FileSource, ReadsAtAnyOffset) {
  const TemporaryDirectory directory;
  write_text(directory / "a", "0123456789");
  const FileSource source(directory / "a");
  EXPECT_EQ(source.size(), 10U);
  std::array<std::byte, 3> bytes = {};
  source.read(4, bytes);
  EXPECT_EQ(std::to_integer<char>(bytes[0]), '4');
  EXPECT_EQ(std::to_integer<char>(bytes[2]), '6');
}

TEST(FileSource, RefusesWhatIsNoFile) {
  const TemporaryDirectory directory;
  expect_error(Status::io_error, {"cannot open", "missing", "No such file"},
               [&] { FileSource(directory / "missing"); });
  expect_error(Status::io_error, {"not a regular file"}, [&] { FileSource(directory.path()); });
  expect_error(Status::io_error, {"not a regular file"}, [] { FileSource("/dev/zero"); });
  ASSERT_EQ(mkfifo((directory / "pipe").c_str(), 0600), 0);
  expect_error(Status::io_error, {"not a regular file"}, [&] { FileSource(directory / "pipe"); });
}

TEST(FileSource, NoticesAFileThatShrinks) {
  const TemporaryDirectory directory;
  write_text(directory / "a", "0123456789");
  const FileSource source(directory / "a");
  write_text(directory / "a", "01");
  std::array<std::byte, 8> bytes = {};
  expect_error(Status::io_error, {"became shorter"}, [&] { source.read(0, bytes); });
}

}  // namespace
}  // namespace fattn::io
