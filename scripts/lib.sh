# SPDX-License-Identifier: Apache-2.0
# What scripts/demo and scripts/test share: what this machine lacks, the Python environment, nvcc, configuring.
# Sourced by bash; plain lines on standard output say what is done.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=scripts/$(basename "$0")
venv=$root/.venv
cd "$root"

say() { printf '%s: %s\n' "$name" "$*"; }
stop() {
  printf '%s: %s\n' "$name" "$*" >&2
  exit 2
}

# Debian package, and the command or file that shows it is there (a command from elsewhere serves as well).
build_packages="
  g++                 g++
  cmake               cmake
  ninja-build         ninja
  ccache              ccache
  libgtest-dev        /usr/include/gtest/gtest.h
  librapidcheck-dev   /usr/include/rapidcheck.h
  libfmt-dev          /usr/include/fmt/core.h
  nlohmann-json3-dev  /usr/include/nlohmann/json.hpp
  libcli11-dev        /usr/include/CLI/CLI.hpp
  libpng-dev          /usr/include/png.h
  ca-certificates     /usr/sbin/update-ca-certificates"
python_needs="
  python3             python3
  python3-venv        python:ensurepip"
check_packages="
  clang-14            clang++-14
  clang-format-14     clang-format-14
  clang-tidy-14       clang-tidy-14
  libclang-rt-14-dev  /usr/lib/llvm-14/lib/clang/14.0.6/include/fuzzer/FuzzedDataProvider.h
  pkg-config          pkg-config
  python3-dev         python3-config"

# missing TABLE: the packages of the table that are not here, one a line.
missing() {
  local package sign
  while read -r package sign; do
    case "$sign" in
      "") continue ;;
      /*) [ -e "$sign" ] || echo "$package" ;;
      python:*) python3 -c "import venv, ${sign#python:}" >/dev/null 2>&1 || echo "$package" ;;
      *) command -v "$sign" >/dev/null 2>&1 || echo "$package" ;;
    esac
  done <<<"$1"
}

# need TABLE: installs what is missing, or says what is missing and stops.
need() {
  local packages
  packages=$(missing "$1" | xargs)
  [ -n "$packages" ] || return 0
  local ID="" VERSION_ID="" PRETTY_NAME="an unknown system"
  [ ! -r /etc/os-release ] || . /etc/os-release
  if [ "$ID" != debian ] || [ "$VERSION_ID" != 12 ]; then
    stop "this is $PRETTY_NAME, not Debian 12; install the equivalents of these packages, then run again: $packages"
  fi
  if [ "$(id -u)" != 0 ]; then
    stop "missing packages, and this is not root: run again as root, or: apt-get install $packages"
  fi
  say "installing $packages"
  export DEBIAN_FRONTEND=noninteractive
  local log
  log=$(mktemp)
  if ! { apt-get update && apt-get install -y --no-install-recommends $packages; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    stop "apt-get could not install: $packages"
  fi
  rm -f "$log"
  packages=$(missing "$1" | xargs)
  [ -z "$packages" ] || stop "installed, and still not found: $packages"
}

# python_packages REQUIREMENT...: into .venv, once for each list.
python_packages() {
  local stamp=$venv/.installed requirement wanted=()
  if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c "import pip" >/dev/null 2>&1; then
    say "making the Python environment .venv"
    python3 -m venv --clear "$venv"
  fi
  for requirement in "$@"; do
    grep -qxF -- "$requirement" "$stamp" 2>/dev/null || wanted+=("$requirement")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  say "pip install ${wanted[*]}"
  local log
  log=$(mktemp)
  if ! "$venv/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    stop "pip could not install: ${wanted[*]}"
  fi
  rm -f "$log"
  printf '%s\n' "${wanted[@]}" >>"$stamp"
}

matplotlib="matplotlib>=3.8,<4"  # what bench/demo_plots.py draws with

# What builds and tests the Python package; and the frameworks whose doors it tests.
python_tests=("scikit-build-core>=0.10,<2" "nanobind>=2.4,<4" "numpy>=1.24,<3" "ml_dtypes<1" "pytest>=8,<10"
  "mypy>=1.11,<3" "auditwheel>=6,<7")
python_frameworks=("torch>=2.6,<3" "jax>=0.6,<1" "transformers>=4.56,<6")

# The compiler, its headers and the static runtime of CUDA 13.0, and the two names that CMake looks for and the wheels
# do not have.
cuda_wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85)
get_cuda() {
  [ "$(uname -m)" = x86_64 ] || stop "--cuda: the pinned wheels are for x86_64, this is $(uname -m)"
  python_packages "${cuda_wheels[@]}"
  local toolkit
  toolkit=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
  [ -x "$toolkit/bin/nvcc" ] || stop "--cuda: the wheels have no bin/nvcc under $toolkit"
  ln -sfn lib "$toolkit/lib64"
  ln -sfn libcudart.so.13 "$toolkit/lib/libcudart.so"
  ln -sfn "${toolkit#"$venv"/}" "$venv/cuda"
}

# find_nvcc: sets nvcc to a compiler of CUDA 13 or newer, or to nothing with the reason in nvcc_absent.
find_nvcc() {
  local candidate version
  nvcc="" nvcc_absent="no nvcc on PATH or in /usr/local/cuda/bin (--cuda gets one)"
  for candidate in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc "$venv/cuda/bin/nvcc"; do
    [ -n "$candidate" ] && [ -x "$candidate" ] || continue
    version=$("$candidate" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
    if [ "${version:-0}" -ge 13 ]; then
      nvcc=$candidate
      return 0
    fi
    nvcc_absent="$candidate is CUDA ${version:-unknown}, 13 is needed (--cuda gets it)"
  done
}

# As many compilers as processors, each with 2 GB of memory.
jobs=$(nproc)
memory_gb=$(awk '/^MemAvailable/ { print int($2 / 2097152) + 1 }' /proc/meminfo 2>/dev/null || true)
[ "${memory_gb:-$jobs}" -ge "$jobs" ] || jobs=$memory_gb

# configure PRESET [CMAKE OPTION...]
configure() {
  local preset=$1 log=$root/build/$1-configure.log
  shift
  mkdir -p "$root/build"
  say "configuring build/$preset"
  cmake --preset "$preset" "$@" >"$log" 2>&1 || {
    cat "$log" >&2
    stop "cmake could not configure build/$preset"
  }
}

# build PRESET [TARGET...]: all targets if none is named.
build() {
  local preset=$1
  shift
  say "building build/$preset${*:+: $*}"
  cmake --build "build/$preset" --parallel "$jobs" ${*:+--target "$@"} || return 1
}

# rows PRESET: what the registry of that build holds.
rows() {
  awk -F'[()]' '/^FATTN_ROW/ { compiled++ } /^FATTN_ABSENT/ { absent++; names = names " " $2 }
    END { printf "%d kernel rows compiled, %d not compiled in%s\n", compiled, absent, absent ? ":" names : "" }' \
    "build/$1/generated/kernel_table.inc"
}
