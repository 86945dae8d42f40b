# SPDX-License-Identifier: Apache-2.0
"""The one record of all evidence: a line of JSON for each thing timed. docs/benchmarks.md says what each field means."""

import json
import math
import pathlib
import re

IMPLS = ("fattn", "cudnn", "fa2", "fa4", "fa3", "torch_cpu", "standard")

_number, _text = (int, float), (str,)
FIELDS = {
    "run": _text,
    "date": _text,
    "commit": _text,
    "device": _text,
    "impl": _text,
    "impl_version": _text,
    "problem": _text,
    "kernel": _text + (type(None),),
    "direction": _text,
    "median_us": _number,
    "min_us": _number,
    "tflops": _number,
    "fraction_of_peak": _number + (type(None),),
    "sm_clock_mhz": _number + (type(None),),
    "bytes": _number + (type(None),),
}


class RecordError(ValueError):
    """A record that is not what docs/benchmarks.md says."""


def check(record):
    """Raises RecordError unless the record has exactly the fields of the schema with sensible values."""
    if not isinstance(record, dict):
        raise RecordError("not a JSON object")
    missing, unknown = FIELDS.keys() - record.keys(), record.keys() - FIELDS.keys()
    if missing or unknown:
        raise RecordError(f"missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")
    for name, kinds in FIELDS.items():
        value = record[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise RecordError(f"{name} = {value!r} has the wrong type")
        if isinstance(value, float) and not math.isfinite(value):
            raise RecordError(f"{name} = {value!r} is not finite")
    if not re.fullmatch(r"\d{8}T\d{6}Z", record["run"]):
        raise RecordError(f"run = {record['run']!r} is no stamp like 20260131T235959Z")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", record["date"]):
        raise RecordError(f"date = {record['date']!r} is no date like 2026-01-31")
    if record["impl"] not in IMPLS:
        raise RecordError(f"impl = {record['impl']!r} is none of {', '.join(IMPLS)}")
    if record["direction"] not in ("forward", "backward"):
        raise RecordError(f"direction = {record['direction']!r} is neither forward nor backward")
    if not 0 < record["min_us"] <= record["median_us"]:
        raise RecordError(f"min_us = {record['min_us']}, median_us = {record['median_us']}: 0 < min <= median")
    if record["tflops"] <= 0:
        raise RecordError(f"tflops = {record['tflops']}: positive")


def write(file, record):
    check(record)
    file.write(json.dumps(record) + "\n")
    file.flush()


def read(path, check=check):
    """All records of one file; RecordError names the line that is none."""
    records = []
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            check(record)
        except ValueError as error:  # JSON errors and RecordError alike
            raise RecordError(f"{path}:{number}: {error}") from None
        records.append(record)
    return records


def read_all(folder, check=check):
    return [record for path in sorted(pathlib.Path(folder).glob("*.jsonl")) for record in read(path, check)]


def geometric_mean(values):
    values = list(values)
    if not values:
        raise ValueError("no values to average")
    return math.exp(sum(map(math.log, values)) / len(values))
