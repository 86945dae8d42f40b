#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check.py BUILD_DIR STEP: one step of the install test (tests/install/CMakeLists.txt lists them); `prefix` goes first."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parent
ROOT = SOURCE.parents[1]
CMAKE, CC, CXX = (os.environ.get(name, default) for name, default in (("CMAKE", "cmake"), ("CC", "cc"), ("CXX", "c++")))


def run(*command, **options):
    command = [str(part) for part in command]
    print("+", shlex.join(command), flush=True)
    return subprocess.run(command, check=True, **options)


def output(*command, **options):
    return run(*command, capture_output=True, text=True, **options).stdout


def require(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def readme_snippet(name):
    """The block of README.md that follows the marker `<!-- snippet:NAME -->`, without its #include lines."""
    block = re.search(rf"<!-- snippet:{name} -->\s*```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    require(block, f"README.md has no block after <!-- snippet:{name} -->")
    return "".join(line + "\n" for line in block.group(1).splitlines() if not line.startswith("#include"))


class Install:
    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.work = self.build / "install-test"
        self.prefix = self.work / "prefix"
        self.libdir = next(iter(self.prefix.glob("lib*/**/libfattn.a")), self.prefix / "lib" / "libfattn.a").parent

    def step_prefix(self):
        """Installs elsewhere and moves the result: nothing may remember where it was."""
        shutil.rmtree(self.work, ignore_errors=True)
        run(CMAKE, "--install", self.build, "--prefix", self.work / "first")
        (self.work / "first").rename(self.prefix)
        for name in ("cpp", "c"):
            (self.work / f"readme_{name}.inc").write_text(readme_snippet(name))

    def programs(self, folder, environment=None):
        for program in ("consumer_cpp", "consumer_c"):
            run(folder / program, env={**os.environ, **(environment or {})})
        needed = output("readelf", "-d", folder / "consumer_cpp")
        return "libfattn.so" in needed

    def cmake(self, kind):
        for asked in (kind, ""):  # by component, and by BUILD_SHARED_LIBS
            folder = self.work / f"cmake-{kind}-{asked or 'default'}"
            shutil.rmtree(folder, ignore_errors=True)
            run(CMAKE, "-G", "Ninja", "-S", SOURCE / "consumer", "-B", folder, f"-DCMAKE_PREFIX_PATH={self.prefix}",
                f"-DKIND={asked}", f"-DBUILD_SHARED_LIBS={'ON' if kind == 'shared' else 'OFF'}",
                f"-DSNIPPET_DIR={self.work}", "-DCMAKE_BUILD_TYPE=Release")
            run(CMAKE, "--build", folder)
            require(self.programs(folder) == (kind == "shared"), f"the program is not linked {kind}")

    def pkgconfig(self, kind):
        if not shutil.which("pkg-config"):
            print("SKIPPED: pkg-config is not installed")
            sys.exit(77)
        package = "fattn-static" if kind == "static" else "fattn"
        environment = {**os.environ, "PKG_CONFIG_PATH": str(self.libdir / "pkgconfig")}
        flags = output("pkg-config", "--cflags", package, env=environment).split()
        libraries = output("pkg-config", "--libs", package, env=environment).split()
        folder = self.work / f"pkgconfig-{kind}"
        folder.mkdir(exist_ok=True)
        consumer = SOURCE / "consumer"
        run(CXX, "-std=c++20", "-O1", *flags, f"-I{self.work}", consumer / "consumer.cpp", "-o", folder / "consumer_cpp", *libraries)
        run(CC, "-std=c11", *flags, f"-I{self.work}", consumer / "consumer.c", "-o", folder / "consumer_c", *libraries)
        require(self.programs(folder, {"LD_LIBRARY_PATH": str(self.libdir)}) == (kind == "shared"),
                f"the program is not linked {kind}")

    def step_c_only_project(self):
        """A project without C++ links the static library too."""
        folder = self.work / "c-only"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(SOURCE / "consumer" / "consumer.c", folder)
        shutil.copy(self.work / "readme_c.inc", folder)
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.16)\nproject(consumer LANGUAGES C)\nfind_package(fattn REQUIRED)\n"
            "add_executable(consumer_c consumer.c)\ntarget_link_libraries(consumer_c PRIVATE fattn::fattn)\n")
        run(CMAKE, "-G", "Ninja", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run(CMAKE, "--build", folder / "build")
        run(folder / "build" / "consumer_c")

    def step_examples(self):
        """examples/ as a project of its own."""
        folder = self.work / "examples"
        shutil.rmtree(folder, ignore_errors=True)
        run(CMAKE, "-G", "Ninja", "-S", ROOT / "examples", "-B", folder, f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run(CMAKE, "--build", folder)
        run(folder / "example_forward", stdout=subprocess.DEVNULL)

    def step_subproject(self):
        """add_subdirectory: the library, and no tests, no tool, no installation, no settings of the whole project."""
        folder = self.work / "subproject"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "toolchain.cmake").write_text('message(FATAL_ERROR "a module of the outer project was taken for ours")')
        (folder / "main.cpp").write_text('#include "fattn/fattn.hpp"\nint main() { return fattn::version().major < 0; }\n')
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(outer LANGUAGES C CXX)\n"
            "list(PREPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_SOURCE_DIR})\n"
            f"add_subdirectory({ROOT} fattn)\nadd_executable(main main.cpp)\n"
            "target_link_libraries(main PRIVATE fattn::fattn)\n"
            "foreach(absent fattn_tool fattn_verify test_core example_forward)\n"
            "  if(TARGET ${absent})\n    message(FATAL_ERROR \"${absent} is part of the outer project\")\n  endif()\nendforeach()\n")
        run(CMAKE, "-G", "Ninja", "-S", folder, "-B", folder / "build", "-DFATTN_CUDA=OFF")
        cache = (folder / "build" / "CMakeCache.txt").read_text()
        require(re.search(r"^CMAKE_BUILD_TYPE:\w+=$", cache, re.MULTILINE), "the outer project's build type was set")
        rules = json.loads(output("ninja", "-C", folder / "build", "-t", "compdb"))
        ours = [each["command"] for each in rules if each["file"].endswith("src/core/plan.cpp")]
        require(ours and "-O3" in ours[0], "the library is not optimised where the outer project has no build type")
        run(CMAKE, "--build", folder / "build", "--target", "CMakeFiles/main.dir/main.cpp.o")
        run(CMAKE, "--install", folder / "build", "--prefix", folder / "prefix")
        require(not (folder / "prefix").exists(), "the outer project installs us")

    def step_exported_names(self):
        shared = self.libdir / "libfattn.so"
        ours = re.compile(r"(fattn_\w+|(typeinfo( name)? for |vtable for |(non-virtual )?thunk to )?fattn::.*)(@@?\w+)?$")
        names = [line.split(None, 2)[2] for line in output("nm", "-D", "-C", "--defined-only", shared).splitlines()]
        require(any(name.startswith("fattn_") for name in names), "the C functions are not exported")
        require(any(name.startswith("fattn::run(") for name in names), "fattn::run is not exported")
        foreign = [name for name in names if not ours.match(name)]
        require(not foreign, f"libfattn.so exports names that are not ours: {foreign[:5]}")
        rooms = [name for name in names if re.search(r"fattn::(cpu|host|reference|cuda|gpu|sm\d+|accelerator)::", name)]
        require(not rooms, f"libfattn.so exports names of its rooms: {rooms[:5]}")
        needed = re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", shared))
        private = [name for name in needed if not re.match(r"(libstdc\+\+|libm|libgcc_s|libc|libdl|librt|libpthread|ld-linux.*)\.so", name)]
        require(not private, f"libfattn.so needs {private}")
        soname = re.search(r"SONAME.*\[(.*)\]", output("readelf", "-d", shared))
        require(soname and re.fullmatch(r"libfattn\.so\.\d+", soname.group(1)), f"SONAME is {soname and soname.group(1)}")
        runtime = [line for line in output("nm", "--extern-only", self.libdir / "libfattn.a").splitlines()
                   if re.search(r" (__)?cuda[A-Z]\w*$", line)]
        require(not runtime, f"libfattn.a shows or wants the CUDA runtime: {runtime[:5]}")
        targets = "".join(path.read_text() for path in self.libdir.glob("cmake/fattn/*.cmake"))
        links = set(re.findall(r"LINK_ONLY:([^>]*)>", targets))
        require(links <= {"Threads::Threads", "dl", "rt"}, f"the CMake package links {links}")
        print(f"{len(names)} exported names, needs {needed}, links {links}")

    def step_headers(self):
        """Each installed header compiles alone, with nothing but the prefix on the path, and gives no warnings."""
        warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef", "-Werror")
        only = {"c++": ("-Wold-style-cast", "-Wnon-virtual-dtor", "-Woverloaded-virtual"),
                "c": ("-Wstrict-prototypes", "-Wmissing-prototypes")}
        others = [(c, cxx) for c, cxx in (("gcc", "g++"), ("clang-14", "clang++-14")) if shutil.which(c) and shutil.which(cxx)]
        include = self.prefix / "include"
        headers = sorted(include.rglob("*.h*"))
        require(len(headers) > 5, f"only {len(headers)} headers are installed")
        for header in headers:
            compilers = []
            for c, cxx in {(CC, CXX), *others}:
                compilers += [(cxx, "c++", "c++20")] + ([(c, "c", "c11")] if header.suffix == ".h" else [])
            for compiler, language, standard in compilers:
                unit = f'#include "{header.relative_to(include)}"\nextern int unit_is_not_empty;\n'
                run(compiler, f"-std={standard}", *warnings, *only[language], "-fsyntax-only", f"-I{include}",
                    "-x", language, "-", input=unit, text=True)


def main(build, step):
    install = Install(build)
    finder = re.fullmatch(r"(cmake|pkgconfig)_(static|shared)", step)
    if finder:
        getattr(install, finder.group(1))(finder.group(2))
    else:
        getattr(install, "step_" + step)()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"FAILED: {shlex.join(error.cmd)} returned {error.returncode}\n{error.stdout or ''}{error.stderr or ''}")
