#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One installed wheel under several versions of PyTorch: installs it once, then for each version puts that PyTorch beside
# it, runs the PyTorch tests, and checks that no byte of the installed package changed.
#
#   bench/torch_versions.sh WHEEL VENV VERSION...      # VENV is made if it is not there; PYTHON names its interpreter
#
# Prints one line for each version; exit 1 if a test failed. Each version is some gigabytes.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '3,/^set/{/^#/{s/^# \{0,1\}//;p}}' "$0"; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheel=$(realpath "$1") venv=$2
shift 2
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
python=$(realpath -s "$venv/bin/python")
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
"$python" -m pip install --quiet --disable-pip-version-check "numpy>=1.24,<3" "pytest>=8,<10"
package=$(cd / && "$python" -c 'import importlib.util; print(importlib.util.find_spec("fattn").submodule_search_locations[0])')
sum() { (cd "$package" && find . -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16); }
installed=$(sum) status=0
echo "$(basename "$wheel"): package $installed, symbols of PyTorch it needs: $(nm -D --undefined-only "$package"/_core*.so | grep -ciE 'c10|torch' || true)"
for version in "$@"; do
  "$python" -m pip install --quiet --disable-pip-version-check "torch==$version"
  result=$(cd "$root" && PYTHONDONTWRITEBYTECODE=1 "$python" -m pytest -p no:cacheprovider -q tests/python/test_torch.py \
    tests/python/test_torch_dropins.py tests/python/test_torch_odd.py tests/python/test_torch_vmap.py 2>&1) || status=1
  [ "$(sum)" = "$installed" ] || { echo "the package changed"; status=1; }
  echo "torch $("$python" -c 'import torch; print(torch.__version__)'), package $(sum): $(tail -n 1 <<<"$result")"
  grep '^FAILED\|^ERROR' <<<"$result" || true
done
exit $status
