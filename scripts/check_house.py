#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""House rules that a compiler does not see (CONTRIBUTING.md): one line for each breach, exit 1.

    scripts/check_house.py [ROOT]"""

import pathlib
import re
import subprocess
import sys

CODE = {".c", ".h", ".hpp", ".cpp", ".cu", ".cuh"}
SCRIPT = {".py", ".sh", ".cmake", ".in", ""}
SPDX = "SPDX-License-Identifier: Apache-2.0"
# What the preprocessor may ask: who compiles, never which feature is wanted.
CONDITION = re.compile(r"^[ \t]*#[ \t]*(?:el)?if(?:n?def)?\b[ \t]*(.*)$", re.MULTILINE)
COMPILER = re.compile(r"(?:!?\s*(?:defined\s*\(?\s*)?(?:__CUDACC__|__CUDA_ARCH__|__GNUC__|__clang__|__cplusplus|"
                      r"__x86_64__|__SANITIZE_THREAD__|__has_feature|NDEBUG|FATTN_[A-Z_]*_H)\)?[^&|]*(?:&&|\|\|)?\s*)+")
# Split so that this file does not find itself.
FORBIDDEN = re.compile("|".join([r"/[w]ork/", r"/[r]oot/", r"/tmp/[b]ash", r"py[p]i\.org", r"debi[a]n\.org", r"\bTO[D]O\b",
                                 r"\bFIX[M]E\b", r"\bXX[X]\b", r"\b(?:this|last|next) sessi[o]n\b"]))
BINARY = {".png", ".safetensors", ".npy", ".xz"}
# Where in the package each framework may be imported.
FRAMEWORKS = {"torch": "python/fattn/torch/", "jax": "python/fattn/jax.py", "transformers": "python/fattn/hf.py"}
IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+(torch|jax|transformers)\b", re.MULTILINE)
MAX_LINES = 500
MAX_TEMPLATE_PARAMETERS = 5


def tracked(root):
    try:
        listing = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        listing = ""  # no git, or a copy without its history
    if listing:
        return [name for name in listing.split("\0") if name and (root / name).is_file()]
    skipped = ("build/", ".venv/", ".git/")
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(skipped) and "__pycache__" not in name)


def without_comments(text):
    blank = lambda match: re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", blank, text, flags=re.DOTALL)


def template_parameters(code):
    """Yields (offset, count) of each template<...>, nested ones included."""
    for match in re.finditer(r"\btemplate\s*<", code):
        depth, commas, position = 1, 0, match.end()
        brackets = 0
        while depth and position < len(code):
            character = code[position]
            brackets += (character in "([{") - (character in ")]}")
            if not brackets:
                depth += (character == "<") - (character == ">")
            commas += character == "," and depth == 1 and not brackets
            position += 1
        yield match.start(), commas + (code[match.end():position - 1].strip() != "")


def check(name, text):
    """Yields (offset, complaint)."""
    for match in FORBIDDEN.finditer(text):
        yield match.start(), f"'{match.group(0)}' does not belong in the project"
    suffix = pathlib.PurePath(name).suffix
    if (suffix in CODE | SCRIPT - {""} or name.startswith("scripts/")) and SPDX not in "\n".join(text.split("\n", 3)[:3]):
        yield 0, f"the first lines lack '{SPDX}'"
    if name.startswith("python/fattn/") and suffix == ".py":
        for match in IMPORT.finditer(text):
            if not name.startswith(FRAMEWORKS[match.group(1)]):
                yield match.start(), f"{match.group(1)} is imported by {FRAMEWORKS[match.group(1)]} alone"
    if suffix not in CODE:
        return
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield 0, f"{lines} lines, at most {MAX_LINES}: split by role"
    for number, line in enumerate(text.split("\n")):
        if len(line) > 120:
            yield sum(len(each) + 1 for each in text.split("\n")[:number]), f"{len(line)} columns, at most 120"
    code = without_comments(text)
    for match in CONDITION.finditer(code):
        if name.startswith(("src/", "include/", "tools/")) and not COMPILER.fullmatch(match.group(1).strip()):
            yield match.start(), f"'{match.group(0).strip()}': features are files that CMake picks, not conditions"
    for offset, count in template_parameters(code):
        if count > MAX_TEMPLATE_PARAMETERS:
            yield offset, f"{count} template parameters, at most {MAX_TEMPLATE_PARAMETERS}"
    if name.startswith("src/cuda/") and not name.startswith("src/cuda/ptx/"):
        for match in re.finditer(r"\basm\b", code):
            yield match.start(), "assembly lives in src/cuda/ptx"
    if name.startswith("src/"):
        for match in re.finditer(r"<<<", code):
            yield match.start(), "kernels are launched by src/cuda/launch.hpp"
    if name.startswith(("src/", "include/")):
        for match in re.finditer(r"\b(?:std::cout|std::cerr|printf|std::exit|abort)\s*[(<]", code):
            yield match.start(), f"the library does not print or exit: {match.group(0)}"


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).resolve().parent.parent)
    wrong = []
    names = [name for name in tracked(root) if pathlib.PurePath(name).suffix not in BINARY and name != "LICENSE"]
    for name in names:
        try:
            text = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for offset, complaint in check(name, text):
            wrong.append(f"{name}:{text.count(chr(10), 0, offset) + 1}: {complaint}")
    for line in wrong:
        print(line)
    print(f"{len(names)} files, {len(wrong)} breaches of the house rules")
    return 1 if wrong or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
