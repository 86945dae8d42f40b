#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that only a Hopper GPU can say, in one go, from binaries that were built before (here or elsewhere).
#
#   bench/gpu_check.sh BUILD OUT [CASES...]
#
# BUILD is the build folder (build/cuda), OUT gets the logs and records, CASES are case files or problem lines to time
# (default: bench/cases/forward_grid.txt). Steps: the GPU tests; `fattn check` over bench/cases/sm90_*check.txt
# and the case lists of tests/kernels; small cases under compute-sanitizer; peers.py. A step that this machine cannot do is skipped, and says so.
#
# Environment: COMMIT (default: asked from git), STEPS (default "tests check sanitizer bench"), PYTHON (python3 with
# PyTorch), BENCH_SECONDS (no further problem is begun after that many, default 420), BENCH_NAME (default forward),
# IMPLS (as peers.py --impls). Exit: 0 when no step that ran failed.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '3,/^set/{/^#/{s/^# \{0,1\}//;p}}' "$0"; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(realpath "$1") out=$(realpath -m "$2")
shift 2
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=("$root/bench/cases/forward_grid.txt")
for i in "${!cases[@]}"; do
  [ ! -f "${cases[$i]}" ] || cases[i]=$(realpath "${cases[$i]}")
done
steps=${STEPS:-tests check sanitizer bench}
python=${PYTHON:-python3}
commit=${COMMIT:-$(git -C "$root" rev-parse HEAD 2>/dev/null || true)}
mkdir -p "$out"
fattn=$build/fattn
[ -x "$fattn" ] || { echo "gpu_check: no $fattn: build the preset first (cmake --build --preset cuda)" >&2; exit 2; }

results=() failed=0
say() { printf 'gpu_check: %s\n' "$*"; }
result() {
  results+=("$1: $2")
  say "$1: $2"
  [[ $2 != FAILED* ]] || failed=1
}
wanted() { [[ " $steps " == *" $1 "* ]]; }

{
  nvidia-smi 2>&1
  "$fattn" info 2>&1
  echo "commit ${commit:-unknown}"
} >"$out/machine.log"
grep -q "NVIDIA" "$out/machine.log" || say "nvidia-smi shows no GPU"

# GPU tests. ctest knows their labels, but only where the tree was built; elsewhere the binaries say what they skip.
tests() {
  local log=$out/tests.log home binary status=0 ran=0
  : >"$log"
  home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt" 2>/dev/null)
  if [ "$home" = "$root" ] && command -v ctest >/dev/null; then
    ctest --test-dir "$build" -L '^gpu$' --output-on-failure --no-tests=error >"$log" 2>&1 || status=1
    result tests "$([ $status = 0 ] && echo passed || echo FAILED) ($(grep 'tests passed' "$log" || echo 'no summary'))"
    return
  fi
  while IFS= read -r binary; do
    # These read their cases from the checkout they were built in; the next step covers them where that is not here.
    if [[ $binary == */kernels/* ]] && [ ! -d "$home/tests/kernels" ]; then continue; fi
    ran=$((ran + 1))
    echo "== $binary" >>"$log"
    "$binary" >>"$log" 2>&1 || { status=1; echo "== FAILED: $binary" >>"$log"; }
  done < <(find "$build/tests" -maxdepth 2 -type f -executable -name 'test_*cuda*' | sort)
  [ $ran -gt 0 ] || status=1
  result tests "$([ $status = 0 ] && echo passed || echo FAILED) ($ran binaries, $(grep -c '^\[  SKIPPED \] [^0-9].*(' "$log") tests skipped)"
}

check() {
  if (cd "$root" && "$fattn" check bench/cases/sm90_check.txt bench/cases/sm90_breadth_check.txt bench/cases/sm90_backward_check.txt tests/kernels/cases.txt tests/kernels/user_reports.txt \
    --device cuda >"$out/check.log" 2>&1); then
    result check passed
  else
    result check "FAILED ($(grep -ci 'miss\|fail' "$out/check.log") lines of check.log name a miss)"
  fi
}

# Small problems that take every path once: ragged tiles, bands, grouped queries, packed and empty sequences.
small=(
  "fwd b1 hq2 hk1 sq130 sk257 d128 bf16 causal lse"
  "fwd b1 hq1 hk1 sq257 sk130 d128 bf16 causal lse"
  "fwd b1 hq2 hk2 sq200 sk300 d128 bf16 causal window=70,-1 lse"
  "fwd b3 hq2 hk1 sq150 sk150 d128 tq260 tk260 bf16 causal lse"
  "fwd b2 hq1 hk1 sq90 sk140 d128 seqused=qk bf16 lse"
  "fwd b1 hq1 hk1 sq40 sk0 d128 bf16 lse"
  "bwd b2 hq2 hk1 sq130 sk100 d128 bf16 causal"
  "bwd b1 hq2 hk1 sq130 sk100 d72 dv40 bf16 causal dout_strides=0,0,0,0"
  "bwd b1 hq2 hk1 sq70 sk100 d64 fp16 deterministic sinks dsink dlse"
  "bwd b3 hq2 hk1 sq150 sk150 d128 tq260 tk260 bf16 causal | lengths_q=150,0,90 lengths_k=150,1,90"
  "bwd b2 hq2 hk1 sq90 sk140 d128 seqused=qk bf16 | used_q=90,33 used_k=77,140"
  "bwd b2 hq1 hk1 sq90 sk300 d64 tq150 tk500 bf16 window=30,10 deterministic | lengths_q=90,50 lengths_k=300,190"
  "bwd b2 hq1 hk1 sq90 sk140 d256 tq150 tk200 bf16 causal | lengths_q=90,50 lengths_k=140,50"
  "bwd b2 hq2 hk1 sq130 sk90 d64 fp16 causal softcap=5 alibi"
  "bwd b2 hq2 hk1 sq90 sk130 d128 bf16 softcap=5 alibi deterministic"
)
sanitizer() {
  local tool log=$out/sanitizer.log status=0 named
  command -v compute-sanitizer >/dev/null || { result sanitizer "skipped: no compute-sanitizer"; return; }
  : >"$log"
  for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool" >>"$log"
    compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$fattn" check "${small[@]}" --device cuda --seed 1 \
      >"$log.part" 2>&1
    local code=$?
    cat "$log.part" >>"$log"
    if grep -q 'Device not supported' "$log.part"; then
      result sanitizer "skipped: compute-sanitizer does not support this device"
      rm -f "$log.part"
      return
    fi
    named=$(grep -c '========= .*\(Error\|Invalid\|Race\|Uninitialized\|Barrier\)' "$log.part")
    [ $code = 0 ] || { status=1; say "$tool: exit $code, $named findings"; }
    rm -f "$log.part"
  done
  result sanitizer "$([ $status = 0 ] && echo 'passed (memcheck racecheck initcheck synccheck)' || echo FAILED)"
}

bench() {
  "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null ||
    { result bench "skipped: $python has no PyTorch that sees a GPU"; return; }
  [ -n "$commit" ] || { result bench "FAILED: say COMMIT=... (this is no git checkout)"; return; }
  (cd "$root" && PYTHONDONTWRITEBYTECODE=1 "$python" bench/peers.py --library "$build/libfattn.so" --device cuda \
    --name "${BENCH_NAME:-forward}" --commit "$commit" --out "$out" --time-limit "${BENCH_SECONDS:-420}" \
    ${IMPLS:+--impls "$IMPLS"} "${cases[@]}") >"$out/peers.log" 2>&1
  local status=$?
  result bench "$([ $status = 0 ] && echo passed || echo FAILED) ($(tail -n 1 "$out/peers.log"))"
}

if wanted tests; then tests; fi
if wanted check; then check; fi
if wanted sanitizer; then sanitizer; fi
if wanted bench; then bench; fi
printf '%s\n' "${results[@]}" | tee "$out/summary.txt"
exit $failed
