// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fattn::io {

// Bytes to read from: a file, or memory in tests. Every failure is Error(io_error) that names the source.
class Source {
 public:
  virtual ~Source() = default;
  virtual const std::string& name() const = 0;
  virtual std::uint64_t size() const = 0;
  // Fills `to` from `offset`; the caller stays within size().
  virtual void read(std::uint64_t offset, std::span<std::byte> to) const = 0;
};

class FileSource final : public Source {
 public:
  explicit FileSource(const std::filesystem::path& path);  // regular files only
  ~FileSource() override;
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  const std::string& name() const override { return name_; }
  std::uint64_t size() const override { return size_; }
  void read(std::uint64_t offset, std::span<std::byte> to) const override;

 private:
  std::string name_;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

class MemorySource final : public Source {
 public:
  MemorySource(std::string name, std::span<const std::byte> bytes) : name_(std::move(name)), bytes_(bytes) {}
  const std::string& name() const override { return name_; }
  std::uint64_t size() const override { return bytes_.size(); }
  void read(std::uint64_t offset, std::span<std::byte> to) const override;

 private:
  std::string name_;
  std::span<const std::byte> bytes_;
};

// Bytes to write to.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
};

class MemorySink final : public Sink {
 public:
  using Sink::write;
  void write(std::span<const std::byte> more) override { bytes.insert(bytes.end(), more.begin(), more.end()); }
  std::vector<std::byte> bytes;
};

// A file that appears whole or not at all: written under a temporary name beside its own, put on the disk, renamed.
// Without commit() the destructor removes the temporary.
class OutputFile final : public Sink {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile() override;
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  void finish();  // everything on the disk, still under the temporary name
  void commit();  // finish, then rename
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty once renamed
  int descriptor_ = -1;
};

}  // namespace fattn::io
