"""Records of a data set: lines of JSON, or a table with tabs."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bct_onnx.errors import BctError

Row = dict[str, Any]


def read_rows(file: str | Path, samples: int | None = None, columns: Sequence[str] | None = None) -> list[Row]:
    """Return the first records of a .jsonl or .tsv file; raises BctError for what cannot be read, or none.

    `columns` are those of a .tsv file without names in its first line.
    """
    file = Path(file)
    if not file.is_file():
        raise BctError(f"{file}: no such file")
    try:
        rows = list(_rows(file, columns))[:samples]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BctError(f"{file}: not records in UTF-8: {error}") from error
    if not rows:
        raise BctError(f"{file}: no records")
    return rows


def _rows(file: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".tsv":
            yield from csv.DictReader(lines, columns, delimiter="\t", quoting=csv.QUOTE_NONE)
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise BctError(f"{file}: line {number} is not JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise BctError(f"{file}: line {number} is not a JSON object")
            yield row


def fields(file: str | Path, rows: Sequence[Row], *names: Sequence[str]) -> list[list[Any]]:
    """Return, for each field, its values in all records; a field has several names, the likeliest first.

    Raises BctError where a record lacks one.
    """
    found = []
    for choices in names:
        name = next((name for name in choices if name in rows[0]), None)
        if name is None:
            there, wanted = ", ".join(map(str, rows[0])), ", ".join(choice[0] for choice in names)
            raise BctError(f"{file}: fields are {there}; wanted are {wanted}")
        short = next((number for number, row in enumerate(rows, 1) if row.get(name) is None), None)
        if short is not None:
            raise BctError(f"{file}: record {short} lacks the field {name}")
        found.append([row[name] for row in rows])
    return found


def text_fields(file: str | Path, rows: Sequence[Row], *names: Sequence[str]) -> list[list[str]]:
    """Return the same of fields that hold text; raises BctError where one holds something else."""
    found = fields(file, rows, *names)
    for choices, values in zip(names, found, strict=True):
        wrong = next((number for number, text in enumerate(values, 1) if not isinstance(text, str)), None)
        if wrong is not None:
            raise BctError(f"{file}: record {wrong} has something else than text as its {choices[0]}")
    return found
