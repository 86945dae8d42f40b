#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds what pages and comments name to what is there: one line for each breach, exit 1.

    scripts/check_docs.py [ROOT]

In pages: links (with their #section), and words in backticks that are paths of this tree, `*` and `{a,b}` included. In
pages and code alike: docs/PAGE.md, and the section in docs/PAGE.md, "Section". A path under build/ is not looked for."""

import itertools
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from check_house import BINARY, tracked

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BACKTICKS = re.compile(r"`([^`\n]+)`")
SECTION = re.compile(r'\b(docs/\w+\.md)(?:, "([^"]+)")?')
MADE_UP = re.compile(r"avx10\b|^src/cuda/sm80/$|^include/fattn/device/$|^src/algebra/algebra/$")  # on purpose
PLACEHOLDER = re.compile(r"[<>$…]|\.\.\.|\bFILE\b|\bNNNN\b")


def headings(text):
    code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ +(.*?) *$", code, re.MULTILINE) + re.findall(r"^\*\*([^*]+)\.\*\*", code, re.MULTILINE)


def anchor(heading):
    """As the sites that show Markdown make it."""
    return re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", heading.lower()))


def alternatives(path):
    """a/{b,c}/d as a/b/d and a/c/d."""
    parts = [part[1:-1].split(",") if part.startswith("{") else [part] for part in re.split(r"(\{[^}]*\})", path)]
    return ["".join(choice) for choice in itertools.product(*parts)]


class Tree:
    def __init__(self, root):
        self.root = root
        self.names = set(tracked(root))
        self.folders = {parent.as_posix() for name in self.names for parent in pathlib.PurePath(name).parents} - {"."}
        self.tops = {name.split("/")[0] for name in self.folders}

    def has(self, path):
        path = path.rstrip("/")
        if "*" in path:
            pattern = re.compile(re.escape(path).replace(r"\*", "[^/]*"))
            return any(pattern.fullmatch(name) for name in self.names | self.folders)
        return path in self.names or path in self.folders

    def text(self, name):
        return (self.root / name).read_text(encoding="utf-8")

    def links(self, name, text):
        for match in LINK.finditer(text):
            target, _, section = match.group(1).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            parts = []
            for part in (pathlib.PurePosixPath(name).parent / target).parts if target else pathlib.PurePosixPath(name).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            path = "/".join(parts)
            if not self.has(path):
                yield match.start(), f"link to {target}, which is not there"
            elif section and section not in map(anchor, headings(self.text(path))):
                yield match.start(), f"link to {match.group(1)}: there is no such section"

    def paths(self, text):
        for match in BACKTICKS.finditer(text):
            for word in match.group(1).split():
                word = re.sub(r":\d+$", "", word.strip("\"'(),;"))
                if "/" not in word or word.split("/")[0] not in self.tops or PLACEHOLDER.search(word) or MADE_UP.search(word):
                    continue
                for path in alternatives(word):
                    if not self.has(path):
                        yield match.start(), f"`{word}`, which is not there"

    def sections(self, text):
        for match in SECTION.finditer(text):
            page, section = match.groups()
            if page not in self.names:
                yield match.start(), f"{page}, which is not there"
            elif section and re.sub(r"\s+(//|\*|#)?\s*", " ", section) not in headings(self.text(page)):
                yield match.start(), f'{page}, "{section}": there is no such section'

    def check(self, name):
        text = self.text(name)
        if name.endswith(".md"):
            yield from self.links(name, text)
            yield from self.paths(text)
        yield from self.sections(text)


def main(arguments):
    tree = Tree(pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).resolve().parent.parent).resolve())
    left_out = (".jsonl", ".log", *BINARY)
    names = [name for name in sorted(tree.names) if not name.endswith(left_out) and name != "scripts/check_docs.py"]
    wrong = 0
    for name in names:
        text = tree.text(name)
        for offset, complaint in tree.check(name):
            print(f"{name}:{text.count(chr(10), 0, offset) + 1}: {complaint}")
            wrong += 1
    print(f"{len(names)} files, {wrong} breaches")
    return 1 if wrong or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
