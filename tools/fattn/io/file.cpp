// SPDX-License-Identifier: Apache-2.0
#include "io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "fattn/error.hpp"

namespace fattn::io {

namespace {

[[noreturn]] void fail(const std::string& what, const std::string& name, int error) {
  throw Error(Status::io_error, fmt::format("{} {}: {}", what, name, std::strerror(error)));
}

// rename() would put a file in the place of a device, and break a link instead of following it.
std::filesystem::path resolve_target(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw Error(Status::io_error, fmt::format("cannot write {}: it is not a regular file", path.string()));
  }
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(path, error))) {
    return std::filesystem::weakly_canonical(path);
  }
  return path;
}

void sync_directory(const std::filesystem::path& file) {
  const std::filesystem::path directory = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);  // some file systems refuse this for directories; the data itself is already safe
  ::close(descriptor);
}

}  // namespace

FileSource::FileSource(const std::filesystem::path& path) : name_(path.string()) {
  // O_NONBLOCK: opening a pipe without a writer must not hang before it is refused.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail("cannot open", name_, errno);
  struct stat facts = {};
  const int rc = ::fstat(descriptor_, &facts);
  if (rc != 0 || !S_ISREG(facts.st_mode)) {
    const int error = errno;
    ::close(descriptor_);
    if (rc != 0) fail("cannot open", name_, error);
    throw Error(Status::io_error, fmt::format("cannot read {}: it is not a regular file", name_));
  }
  size_ = static_cast<std::uint64_t>(facts.st_size);
}

FileSource::~FileSource() { ::close(descriptor_); }

void FileSource::read(std::uint64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    // Linux reads at most 2 GiB at a time.
    const std::size_t step = std::min<std::size_t>(to.size(), std::size_t(1) << 30);
    const ssize_t got = ::pread(descriptor_, to.data(), step, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read", name_, errno);
    if (got == 0) throw Error(Status::io_error, fmt::format("{} became shorter while it was read", name_));
    to = to.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void MemorySource::read(std::uint64_t offset, std::span<std::byte> to) const {
  if (offset > bytes_.size() || to.size() > bytes_.size() - offset) {
    throw Error(Status::io_error, fmt::format("{}: read beyond the end", name_));
  }
  if (!to.empty()) std::memcpy(to.data(), bytes_.data() + offset, to.size());
}

OutputFile::OutputFile(const std::filesystem::path& path) : path_(resolve_target(path)) {
  static std::atomic<unsigned> counter = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::string name =
        fmt::format(".{}.{}.{}.tmp", path_.filename().string().substr(0, 200), ::getpid(), counter.fetch_add(1));
    temporary_ = path_.parent_path() / name;
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ >= 0) return;
    if (errno != EEXIST) break;
  }
  fail("cannot write", path_.string(), errno);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t step = std::min<std::size_t>(bytes.size(), std::size_t(1) << 30);
    const ssize_t put = ::write(descriptor_, bytes.data(), step);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("cannot write", path_.string(), errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

void OutputFile::finish() {
  if (descriptor_ < 0) return;
  if (::fsync(descriptor_) != 0) fail("cannot write", path_.string(), errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot write", path_.string(), errno);
}

void OutputFile::commit() {
  finish();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot write", path_.string(), errno);
  temporary_.clear();
  sync_directory(path_);
}

}  // namespace fattn::io
