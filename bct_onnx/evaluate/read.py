"""Records of a data set: lines of JSON, or a table with tabs."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError

Record = dict[str, Any]


def read_records(file: str | Path, samples: int | None = None, columns: Sequence[str] | None = None) -> list[Record]:
    """Return the first records of a .jsonl or .tsv file; raises BctError for what cannot be read, or none.

    `columns` are those of a .tsv file without names in its first line.
    """
    file = Path(file)
    if not file.is_file():
        raise BctError(f"{file}: no such file")
    try:
        records = list(_records(file, columns))[:samples]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BctError(f"{file}: not records in UTF-8: {error}") from error
    if not records:
        raise BctError(f"{file}: no records")
    return records


def _records(file: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".tsv":
            yield from csv.DictReader(lines, columns, delimiter="\t", quoting=csv.QUOTE_NONE)
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise BctError(f"{file}: line {number} is not JSON: {error.msg}") from error
            if not isinstance(record, dict):
                raise BctError(f"{file}: line {number} is not a JSON object")
            yield record


def fields(file: str | Path, records: Sequence[Record], *names: Sequence[str]) -> list[list[Any]]:
    """Return, for each field, its values in all records; a field has several names, the likeliest first.

    Raises BctError where a record lacks one.
    """
    found = []
    for choices in names:
        name = next((name for name in choices if name in records[0]), None)
        if name is None:
            fields, wanted = ", ".join(map(str, records[0])), ", ".join(choice[0] for choice in names)
            raise BctError(f"{file}: fields are {fields}; wanted are {wanted}")
        short = next((number for number, record in enumerate(records, 1) if record.get(name) is None), None)
        if short is not None:
            raise BctError(f"{file}: record {short} lacks the field {name}")
        found.append([record[name] for record in records])
    return found


def text_fields(file: str | Path, records: Sequence[Record], *names: Sequence[str]) -> list[list[str]]:
    """Return the same of fields that hold text; raises BctError where one holds something else."""
    found = fields(file, records, *names)
    for choices, values in zip(names, found, strict=True):
        wrong = next((number for number, text in enumerate(values, 1) if not isinstance(text, str)), None)
        if wrong is not None:
            raise BctError(f"{file}: record {wrong} has something else than text as its {choices[0]}")
    return found
