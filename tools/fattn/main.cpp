// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "commands.hpp"
#include "fattn/error.hpp"
#include "io/array.hpp"

namespace {

using namespace fattn::tool;

int complain(const char* reason) {
  std::fprintf(stderr, "fattn: %s\n", reason);
  return kExitBad;
}

std::string names_of(const std::vector<CLI::App*>& commands) {
  std::string names;
  for (const CLI::App* each : commands) names += (names.empty() ? "" : ", ") + each->get_name();
  return names;
}

int run_command(const Command& command) {
  try {
    return command();
  } catch (const fattn::Error& error) {
    return complain(error.what());
  } catch (const std::bad_alloc&) {
    return complain("out of memory");
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  // A file size limit and a closed pipe become errors of the write that met them.
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);

  CLI::App app("fattn: exact attention without the score matrix in memory", "fattn");
  app.set_version_flag("--version", version_text());
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  app.footer("fattn COMMAND --help shows examples. Exit codes: 0 done, 1 a check missed, 2 bad input.");
  Command chosen;
  add_info(app, chosen);
  add_explain(app, chosen);
  add_check(app, chosen);
  add_bench(app, chosen);
  add_run(app, chosen);
  add_map(app, chosen);
  add_walk(app, chosen);
  add_tune(app, chosen);
  add_selfcheck(app, chosen);
  int code = kExitOk;
  const std::vector<CLI::App*> commands = app.get_subcommands([](const CLI::App*) { return true; });
  const auto is_first = [&](const CLI::App* command) { return command->check_name(argv[1]); };
  // CLI11 would only say that a command is needed.
  if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), is_first)) {
    return complain(
        fmt::format("unknown command {}; there are {}", fattn::io::printable(argv[1]), names_of(commands)).c_str());
  }
  try {
    app.parse(argc, argv);
    code = run_command(chosen);
  } catch (const CLI::ParseError& error) {
    code = app.exit(error) == 0 ? kExitOk : kExitBad;
  }
  // What stdout still holds may not fit on a full disk.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return complain("cannot write to the standard output");
  return code;
}
