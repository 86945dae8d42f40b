# SPDX-License-Identifier: Apache-2.0
"""The record of what is counted rather than timed (bench/measures.py); docs/benchmarks.md says what each field means."""

import json
import math
import re

import records

FIELDS = ("run", "date", "commit", "device", "impl", "impl_version", "problem", "measure")  # strings


def check(record):
    """Raises RecordError unless the record has exactly the fields of the schema with sensible values."""
    if not isinstance(record, dict) or record.keys() != {*FIELDS, "value"}:
        raise records.RecordError(f"not the fields {', '.join(FIELDS)} and value: {record!r:.200}")
    if not all(isinstance(record[name], str) for name in FIELDS):
        raise records.RecordError(f"not text: {record!r:.200}")
    value = record["value"]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise records.RecordError(f"value = {value!r} is no number that could be counted")
    if not re.fullmatch(r"\d{8}T\d{6}Z", record["run"]):
        raise records.RecordError(f"run = {record['run']!r} is no stamp like 20260131T235959Z")
    if record["impl"] not in records.IMPLS:
        raise records.RecordError(f"impl = {record['impl']!r} is none of {', '.join(records.IMPLS)}")


def write(file, record):
    check(record)
    file.write(json.dumps(record) + "\n")
    file.flush()


def read_all(folder):
    return records.read_all(folder, check)
