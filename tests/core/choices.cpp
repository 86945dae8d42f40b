// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/expect_error.hpp"
#include "fattn/choices.hpp"
#include "fattn/plan.hpp"

namespace fattn {
namespace {

const char* const kForward = "fwd b1 hq2 hk2 sq300 sk300 d64 bf16";
const char* const kBackward = "bwd b1 hq2 hk2 sq300 sk300 d64 bf16";

std::string line(const char* problem, const char* kernel, const Device& device) {
  Choices one;
  one.choose(parse_problem(problem), device, kernel);
  return one.text();
}

// A variable of the environment for as long as this lives.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

class File {
 public:
  explicit File(const std::string& text)
      : path_(std::filesystem::temp_directory_path() / ("fattn_choices_" + std::to_string(getpid()) + ".txt")) {
    std::ofstream(path_) << text;
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(ForcedTile, IsTaken) {
  const Problem p = parse_problem(kForward);
  const Plan usual = plan(p, cpu(1), "cpu_scalar_forward"), other = plan(p, cpu(1), "cpu_scalar_forward@48x48");
  EXPECT_EQ(other.kernel(), "cpu_scalar_forward");
  EXPECT_TRUE(other.launch_shape().tile.starts_with("48x48 ")) << other.launch_shape().tile;
  EXPECT_FALSE(usual.launch_shape().tile.starts_with("48x48 ")) << usual.launch_shape().tile;
  EXPECT_GT(other.launch_shape().grid, usual.launch_shape().grid);
  // Of several names the one whose pass fits is taken, with its own tile.
  const char* const both = "cpu_scalar_backward@48x96,cpu_scalar_forward@192x96";
  EXPECT_TRUE(plan(p, cpu(1), both).launch_shape().tile.starts_with("192x96 "));
  EXPECT_TRUE(plan(parse_problem(kBackward), cpu(1), both).launch_shape().tile.starts_with("48x96 "));
}

TEST(ForcedTile, IsRefusedWhereThereIsNoSuch) {
  const auto refused = [](Status status, const char* kernel, const std::vector<std::string>& parts) {
    expect_error(status, parts, [&] { plan(parse_problem(kForward), cpu(1), kernel); });
  };
  refused(Status::unsupported, "cpu_scalar_forward@96x97", {"'96x97'", "cpu_scalar_forward has", "nearest: 96x96"});
  refused(Status::unsupported, "reference_forward_fp64@96x96", {"has one tile", "nearest: none"});
  refused(Status::unsupported, "cpu_amx_emulated_forward@48x48", {"'48x48'", "nearest: "});
  refused(Status::invalid_argument, "cpu_scalar_forward@", {"is empty", "nearest: none"});
  refused(Status::invalid_argument, "cpu_skalar_forward@96x96",
          {"'cpu_skalar_forward'", "nearest: cpu_scalar_forward"});
}

TEST(Choices, AreForAProblemOnADevice) {
  const Problem p = parse_problem(kForward);
  Choices choices;
  choices.choose(p, cpu(1), "cpu_scalar_forward@48x96");
  choices.choose(p, cpu(2), "cpu_scalar_forward");
  choices.choose(p, h100(), "cuda_reference_forward");
  EXPECT_EQ(choices.kernel_for(p, cpu(1)), "cpu_scalar_forward@48x96");
  EXPECT_EQ(choices.kernel_for(p, cpu(2)), "cpu_scalar_forward");
  EXPECT_EQ(choices.kernel_for(p, cpu(3)), "");
  EXPECT_EQ(choices.kernel_for(p, h100()), "cuda_reference_forward");
  EXPECT_EQ(choices.kernel_for(p, a100()), "");
  EXPECT_EQ(choices.kernel_for(parse_problem(kBackward), cpu(1)), "");
  choices.choose(p, cpu(1), "cpu_scalar_forward@96x96");
  EXPECT_EQ(choices.kernel_for(p, cpu(1)), "cpu_scalar_forward@96x96");
  // The text gives the same choices back; the problem may be written in any order of words.
  const Choices again = Choices::parse("# a comment\n\n" + choices.text());
  EXPECT_EQ(again.text(), choices.text());
  const Choices loose = Choices::parse("fwd bf16 d64 sq300 hq2 |cpu_scalar_forward|" + h200().name + "\r\n");
  EXPECT_EQ(loose.kernel_for(p, h200()), "cpu_scalar_forward");
  EXPECT_EQ(Choices::parse("").text(), "");
}

TEST(Choices, MalformedLinesAreNamed) {
  const std::string good = line(kForward, "cpu_scalar_forward@48x96", cpu(1));
  const auto malformed = [&](const std::string& text, std::vector<std::string> parts) {
    parts.emplace_back("file:2: ");
    parts.emplace_back("nearest: ");
    expect_error(Status::invalid_argument, parts, [&] { Choices::parse(good + text, "file"); });
  };
  malformed("fwd b1", {"three parts"});
  malformed(std::string(kBackward) + " | cpu_scalar_backward", {"three parts"});
  malformed(std::string(kBackward) + " | cpu_scalar_backward | ", {"device is missing"});
  malformed("fwd b1 hq2 sq300 d64 casual | cpu_scalar_forward | cpu", {"'casual'", "nearest: causal"});
  malformed(std::string(kBackward) + " | cpu_scalar_forward | cpu", {"not a backward row", "cpu_scalar_backward"});
  malformed(std::string(kBackward) + " | | cpu", {"''"});
  malformed(good, {"line 1 chooses"});
}

TEST(Choices, TheFileOfTheEnvironmentIsHeeded) {
  const Problem p = parse_problem(kForward);
  const File file(line(kForward, "cpu_scalar_forward@48x96", cpu(1)));
  const Variable variable("FATTN_CHOICES", file.path());
  EXPECT_EQ(plan(p, cpu(1)).kernel(), "cpu_scalar_forward");
  EXPECT_TRUE(plan(p, cpu(1)).launch_shape().tile.starts_with("48x96 "));
  // Another problem, another device, a name: as if there were no file.
  EXPECT_EQ(plan(p, cpu(2)).kernel(), plan(parse_problem("fwd b2 hq1 hk1 sq300 sk300 d64 bf16"), cpu(2)).kernel());
  EXPECT_TRUE(plan(p, cpu(1), "cpu_scalar_forward@96x96").launch_shape().tile.starts_with("96x96 "));
  const Variable name("FATTN_KERNEL", "cpu_scalar_forward@192x96");
  EXPECT_TRUE(plan(p, cpu(1)).launch_shape().tile.starts_with("192x96 "));
}

TEST(Choices, AFileThatIsWrongIsAnError) {
  const Problem p = parse_problem(kForward);
  {
    const Variable variable("FATTN_CHOICES", "/nonexistent/choices.txt");
    expect_error(Status::io_error, {"/nonexistent/choices.txt", "cannot be read", "nearest: "},
                 [&] { plan(p, cpu(1)); });
  }
  {
    const Variable variable("FATTN_CHOICES", std::filesystem::temp_directory_path().string());
    expect_error(Status::io_error, {"cannot be read"}, [&] { plan(p, cpu(1)); });
  }
  const File malformed("nonsense\n");
  {
    const Variable variable("FATTN_CHOICES", malformed.path());
    expect_error(Status::invalid_argument, {malformed.path() + ":1: "}, [&] { plan(p, cpu(1)); });
  }
  // What is chosen and declines is no reason to take another row.
  const File declines(line(kForward, "cpu_scalar_forward@33x33", cpu(1)));
  const Variable variable("FATTN_CHOICES", declines.path());
  expect_error(Status::unsupported, {declines.path() + " chooses cpu_scalar_forward@33x33", "nearest: "},
               [&] { plan(p, cpu(1)); });
}

}  // namespace
}  // namespace fattn
