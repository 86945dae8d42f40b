#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The house checkers pass a clean house and catch each breach they promise to catch."""

import pathlib
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
CLEAN = {
    "include/fattn/mask.hpp": "#include <cstdint>\n",
    "src/algebra/band.hpp": "#include <cmath>\n",
    "src/core/kernel.hpp": '#include "fattn/mask.hpp"\n',
    "src/cpu/forward.cpp": '#include "algebra/band.hpp"\n#include "core/kernel.hpp"\n',
    "src/cuda/ptx/tma.cuh": '#include <cuda.h>\ninline void go() { asm volatile(""); }\n',
    "src/cuda/tile/ring.cuh": '#include "cuda/ptx/tma.cuh"\n',
    "src/cuda/sm90/forward.cuh": '#include "cuda/tile/ring.cuh"\n#include "algebra/band.hpp"\n',
    "src/cuda/sm90/store.cuh": '#include "cuda/sm90/forward.cuh"\n',
    "python/fattn/torch/_run.py": "# SPDX-License-Identifier: Apache-2.0\nimport torch\n",
    "python/fattn/hf.py": "# SPDX-License-Identifier: Apache-2.0\nfrom . import torch\n",
    "docs/api.md": "# API\n[above](#api), [code](../src/cpu/forward.cpp), `src/{cpu,core}/*`, `src/cpu/`\n",
}
# (checker, file, added line, what the message says)
BREACHES = [
    ("check_includes.py", "include/fattn/mask.hpp", '#include "core/kernel.hpp"', "against the arrows"),
    ("check_includes.py", "include/fattn/mask.hpp", "#include <fmt/format.h>", "not of the standard library"),
    ("check_includes.py", "include/fattn/mask.hpp", "#include <cuda_runtime.h>", "not of the standard library"),
    ("check_includes.py", "src/algebra/band.hpp", '#include "fattn/mask.hpp"', "against the arrows"),
    ("check_includes.py", "src/core/kernel.hpp", '#include "cpu/forward.hpp"', "against the arrows"),
    ("check_includes.py", "src/cpu/forward.cpp", '#include "reference/forward.hpp"', "against the arrows"),
    ("check_includes.py", "src/cpu/forward.cpp", '#include "core/registry.hpp"', "against the arrows"),
    ("check_includes.py", "src/cuda/ptx/tma.cuh", '#include "algebra/band.hpp"', "against the arrows"),
    ("check_includes.py", "src/cuda/tile/ring.cuh", '#include "cuda/sm90/forward.cuh"', "against the arrows"),
    ("check_includes.py", "src/cuda/sm90/store.cuh", '#include "cuda/sm80/forward.cuh"', "against the arrows"),
    ("check_includes.py", "src/cpu/forward.cpp", '#include "algebra/absent.hpp"', "not a path from"),
    ("check_includes.py", "src/cpu/forward.cpp", "#include <algebra/band.hpp>", "write it in quotes"),
    ("check_includes.py", "src/attic/forward.cpp", '#include "fattn/mask.hpp"', "no arrows are drawn"),
    ("check_house.py", "src/cpu/forward.cpp", "#ifdef FATTN_WITH_DROPOUT\n#endif", "features are files"),
    ("check_house.py", "src/cuda/tile/ring.cuh", 'inline void go() { asm("nop"); }', "assembly lives in"),
    ("check_house.py", "src/cuda/sm90/store.cuh", "void go() { kernel<<<1, 1>>>(); }", "launched by"),
    ("check_house.py", "src/cpu/forward.cpp", "void go() { std::printf(\"x\"); }", "does not print or exit"),
    ("check_house.py", "src/cpu/forward.cpp", "template <int a, class B, int c, int d, class E, bool f> void go();", "6 template"),
    ("check_house.py", "src/cpu/forward.cpp", "\n" * 500, "lines, at most"),
    ("check_house.py", "src/cpu/forward.cpp", "// " + "x" * 118, "columns, at most"),
    ("check_house.py", "python/fattn/hf.py", "import torch.nn", "torch is imported by python/fattn/torch/ alone"),
    ("check_house.py", "python/fattn/torch/_run.py", "    from jax import numpy", "jax is imported by python/fattn/jax.py alone"),
    ("check_house.py", "src/cpu/forward.cpp", "// TO" + "DO: later", "does not belong"),
    ("check_docs.py", "docs/api.md", "[a](absent.md)", "link to absent.md"),
    ("check_docs.py", "docs/api.md", "[a](api.md#absent)", "no such section"),
    ("check_docs.py", "docs/api.md", "`src/cpu/backward.cpp`", "`src/cpu/backward.cpp`, which is not there"),
    ("check_docs.py", "docs/api.md", "`src/cpu/{forward,backward}.cpp`", "which is not there"),
    ("check_docs.py", "src/cpu/forward.cpp", "// docs/ab" + "sent.md", "sent.md, which is not there"),
    ("check_docs.py", "src/cpu/forward.cpp", '// docs/api.md' + ', "Absent"', "no such section"),
]


def verdict(checker, files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SPDX + text, encoding="utf-8")
        return subprocess.run([sys.executable, SCRIPTS / checker, folder], capture_output=True, text=True, check=False)


def main():
    wrong = []
    for checker in ("check_includes.py", "check_house.py", "check_docs.py"):
        answer = verdict(checker, CLEAN)
        if answer.returncode:
            wrong.append(f"{checker} refuses a clean house:\n{answer.stdout}{answer.stderr}")
    for checker, name, line, message in BREACHES:
        answer = verdict(checker, {**CLEAN, name: CLEAN.get(name, "") + line + "\n"})
        if answer.returncode != 1 or message not in answer.stdout:
            wrong.append(f"{checker} does not say '{message}' for {line.strip()[:60]!r} in {name}:\n{answer.stdout}{answer.stderr}")
    print(*wrong, f"{len(BREACHES)} breaches tried, {len(wrong)} complaints", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
