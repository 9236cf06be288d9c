"""Records of data sets, and what is said of files that hold none."""

import pytest

from bct_onnx import BctError
from bct_onnx.evaluate.read import fields, read_records, text_fields


def test_lines_of_json_and_tables_are_records(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\tb"}\n\n{"text": "c"}\n')
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a"\t1\n"b\t2\n')  # a quote is a quote
    assert read_records(tmp_path / "a.jsonl") == [{"text": "a\tb"}, {"text": "c"}]
    assert read_records(tmp_path / "a.tsv") == [{"text": '"a"', "label": "1"}, {"text": '"b', "label": "2"}]
    assert read_records(tmp_path / "a.tsv", 1) == [{"text": '"a"', "label": "1"}]
    assert read_records(tmp_path / "a.tsv", columns=("x", "y"))[0] == {"x": "text", "y": "label"}


def test_a_field_has_several_names_of_which_the_first_counts():
    rows = [{"b": 1, "a": 2, "c": "x"}, {"b": 3, "a": 4, "c": "y"}]
    assert fields("f", rows, ("a", "b"), ("none", "c")) == [[2, 4], ["x", "y"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"x": 1}], "f: fields are x; wanted are source, target"),
        ([{"source": "a", "target": "b"}, {"source": "a"}], "f: record 2 lacks the field target"),
        ([{"source": "a", "target": 7}], "f: record 1 has something else than text as its target"),
    ],
)
def test_what_is_missing_is_said(rows, message):
    with pytest.raises(BctError) as caught:
        text_fields("f", rows, ("source",), ("target",))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "no records"),
        (b"\n\n", "no records"),
        (b"[1]\n", "line 1 is not a JSON object"),
        (b'{"a": 1}\n{"a"\n', "line 2 is not JSON"),
        (b'{"a": "\xff"}\n', "not records in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(BctError, match=message):
        read_records(tmp_path / "a.jsonl")
