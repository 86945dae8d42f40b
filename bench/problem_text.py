# SPDX-License-Identifier: Apache-2.0
"""The text form of a Problem, as far as benchmarks need it. The grammar is in docs/api.md; the library is its parser,
and tests/bench holds this reading to it."""

import dataclasses
import re

DTYPE_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "e4m3": 1}
UNBOUNDED = 1 << 30


class ProblemError(ValueError):
    """A line that is no problem, or that says something benchmarks do not know."""


@dataclasses.dataclass(frozen=True)
class Problem:
    direction: str  # fwd, bwd, decode
    dtype: str
    batch: int = 1
    heads_q: int = 1
    heads_kv: int = 1
    seqlen_q: int = 1  # packed: the longest sequence
    seqlen_k: int = 1
    head_dim: int = 64
    head_dim_v: int = 64
    total_q: int | None = None
    total_k: int | None = None
    causal: bool = False
    causal_top_left: bool = False
    window: tuple[int, int] = (-1, -1)
    lse: bool = False
    others: frozenset = frozenset()  # words that this reading does not interpret
    # Packed: the data behind a bar of a case line, not part of the problem.
    lengths_q: tuple[int, ...] | None = dataclasses.field(default=None, compare=False)
    lengths_k: tuple[int, ...] | None = dataclasses.field(default=None, compare=False)

    @property
    def packed(self):
        return self.total_q is not None or self.total_k is not None

    @property
    def full(self):
        return not self.causal and not self.causal_top_left and self.window == (-1, -1) and not self.others


WORDS = {
    "b": "batch",
    "hq": "heads_q",
    "hk": "heads_kv",
    "sq": "seqlen_q",
    "sk": "seqlen_k",
    "d": "head_dim",
    "dv": "head_dim_v",
    "tq": "total_q",
    "tk": "total_k",
}


def parse(text):
    """A problem, or a case line `problem | lengths_q=... lengths_k=...`. Words not understood stay in `others`."""
    fields, others = {}, set()
    text, _, data = text.partition("|")
    words = text.split()
    if not words or words[0] not in ("fwd", "bwd", "decode"):
        raise ProblemError(f"a problem begins with fwd, bwd or decode: {text!r}")
    for word in words[1:]:
        number = re.fullmatch(r"([a-z]+)(\d+)", word)
        if word in DTYPE_BYTES:
            fields["dtype"] = word
        elif number and number[1] in WORDS:
            fields[WORDS[number[1]]] = int(number[2])
        elif word == "causal":
            fields["causal"] = True
        elif word == "causal_top_left":
            fields["causal_top_left"] = True
        elif word == "lse":
            fields["lse"] = True
        elif re.fullmatch(r"window=-?\d+,-?\d+", word):
            fields["window"] = tuple(int(x) for x in word[7:].split(","))
        else:
            others.add(word)
    if "dtype" not in fields:
        raise ProblemError(f"no dtype in {text!r}")
    for needed, word in (("seqlen_q", "sq"), ("head_dim", "d")):
        if needed not in fields:
            raise ProblemError(f"no {word} in {text!r}")
    fields.setdefault("heads_kv", fields.get("heads_q", 1))
    fields.setdefault("seqlen_k", fields["seqlen_q"])
    fields["head_dim_v"] = fields.get("head_dim_v") or fields["head_dim"]
    for word in data.split():
        name, _, value = word.partition("=")
        if name not in ("lengths_q", "lengths_k"):
            raise ProblemError(f"benchmarks draw their own data: {word!r}")
        fields[name] = tuple(int(x) for x in value.split(","))
    return Problem(direction=words[0], others=frozenset(others), **fields)


def read_cases(path):
    """The problem lines of a case file: `#` begins a comment, empty lines are skipped."""
    with open(path, encoding="utf-8") as file:
        lines = [line.split("#", 1)[0].strip() for line in file]
    return [line for line in lines if line]


def lengths(problem, total, longest, given=None):
    """Lengths of a packed batch. Where the line does not give them: the problem says their number, sum and maximum, and
    this fixes the rest the same way every time. The first is the longest, the others fall by a constant ratio."""
    if total is None:
        return [longest] * problem.batch
    if given is not None:
        if len(given) != problem.batch or not all(0 <= each <= longest for each in given) or sum(given) != total:
            raise ProblemError(
                f"lengths {given} do not fit {problem.batch} sequences, {longest} at most, {total} in all"
            )
        return list(given)
    left, count = total - longest, problem.batch - 1
    if left < 0 or left > count * longest:
        raise ProblemError(f"{problem.batch} sequences of at most {longest} cannot have {total} rows together")
    if count == 0:
        return [longest]
    low, high = 0.0, 1.0
    for _ in range(60):  # sum of longest * ratio^i is increasing in ratio
        ratio = (low + high) / 2
        low, high = (ratio, high) if sum(longest * ratio ** (i + 1) for i in range(count)) < left else (low, ratio)
    result = [min(longest, int(longest * ratio ** (i + 1))) for i in range(count)]
    short = left - sum(result)
    while short:  # what rounding down lost
        for i in range(count):
            if short and result[i] < longest:
                result[i] += 1
                short -= 1
    return [longest] + result


def sequences(problem):
    """(seqlen_q, seqlen_k) of each sequence of the batch."""
    lengths_q = lengths(problem, problem.total_q, problem.seqlen_q, problem.lengths_q)
    return list(zip(lengths_q, lengths(problem, problem.total_k, problem.seqlen_k, problem.lengths_k)))


def band(problem, seqlen_q, seqlen_k):
    """(left, right) around the diagonal, as src/algebra/mask_band.hpp lowers the mask."""
    left = UNBOUNDED if problem.window[0] < 0 else problem.window[0]
    right = UNBOUNDED if problem.window[1] < 0 else problem.window[1]
    if problem.causal:
        right = min(right, 0)
    if problem.causal_top_left:
        right = min(right, seqlen_q - seqlen_k)
    return left, right


def visible_pairs(problem):
    """Visible (query, key) pairs of all heads together, exact for the band masks."""
    unknown = problem.others - {"deterministic", "batch_invariant"}  # these two change the order of sums only
    if unknown:
        raise ProblemError("no pair count for " + " ".join(sorted(unknown)))
    pairs = 0
    for seqlen_q, seqlen_k in sequences(problem):
        left, right = band(problem, seqlen_q, seqlen_k)
        if left == UNBOUNDED and right == UNBOUNDED:
            pairs += seqlen_q * seqlen_k
            continue
        shift = seqlen_k - seqlen_q
        for query in range(seqlen_q):
            diagonal = query + shift
            pairs += max(0, min(seqlen_k, diagonal + right + 1) - max(0, diagonal - left))
    return pairs * problem.heads_q


def flops(problem):
    """Multiply-adds count two: forward 2 * pairs * (d + dv), backward 2 * pairs * (3 d + 2 dv)."""
    d, dv = problem.head_dim, problem.head_dim_v
    return 2.0 * visible_pairs(problem) * (3 * d + 2 * dv if problem.direction == "bwd" else d + dv)


def tensor_bytes(problem):
    """Bytes of the inputs and outputs of one call, each once."""
    rows_q = problem.total_q if problem.total_q is not None else problem.batch * problem.seqlen_q
    rows_k = problem.total_k if problem.total_k is not None else problem.batch * problem.seqlen_k
    d, dv = problem.head_dim, problem.head_dim_v
    q, k = rows_q * problem.heads_q * d, rows_k * problem.heads_kv * d
    v, o = rows_k * problem.heads_kv * dv, rows_q * problem.heads_q * dv
    elements = q + k + v + o if problem.direction == "fwd" else 2 * (q + k + v + o)
    lse = 4 * rows_q * problem.heads_q if problem.lse or problem.direction == "bwd" else 0
    return elements * DTYPE_BYTES[problem.dtype] + lse
