"""Rows of sizes and their bars."""

from bct_onnx.page.sizes import MOST_ROWS, Size, by_operator, by_weight, by_width, floats, top


def tensor(name: str, before: int, after: int, lowering: str = "dense", bits: int = 4):
    shape = [before // 16, 4]
    return {
        "name": name,
        "shape": shape,
        "bits": bits,
        "lowering": lowering,
        "bytes_before": before,
        "bytes_after": after,
        "sqnr_db": 20.0,
        "op": "MatMul",
        "node": "",
    }


def left(name: str, size: int):
    return {"name": name, "bytes": size, "op": "Add", "node": "n", "reason": "it is small"}


def test_small_operators_are_summed_and_bars_have_one_scale():
    sizes = [("MatMul", 800_000, 100_000), ("Conv", 400_000, 400_000), ("Add", 16, 16), ("Mul", 8, 8), ("", 900, 600)]
    rows = by_operator({"sizes": [dict(zip(("op", "before", "after"), each, strict=True)) for each in sizes]})
    assert [row.name for row in rows] == ["MatMul", "Conv", "2 other operators", "graph and whole numbers"]
    assert [(row.full, row.left) for row in rows[:2]] == [(100.0, 12.5), (50.0, 50.0)]
    assert (rows[2].before, rows[2].ratio) == (24, 1.0)


def test_every_weight_has_a_row():
    report = {
        "tensors": [
            tensor("a", 4000, 500),
            tensor("h", 800, 400, "half", 16),
            tensor("t", 4000, 0, "tied", 0),
            tensor("b", 8000, 2000, bits=8),
        ],
        "left_in_float": [left("f", 100)],
        "search": {"weights": [{"name": "a", "bits": 4, "errors": {"4": 0.125}}]},
    }
    rows = {row.name: row for row in by_weight(report)}
    assert [row.bits for row in rows.values()] == ["4 bits", "float16", "another's", "8 bits", "float"]
    assert [row.alone for row in rows.values()] == [0.125, None, None, None, None]
    assert (rows["t"].ratio, rows["a"].ratio, rows["f"].reason) == (None, 8.0, "it is small")
    widths = [(row.name, row.after) for row in by_width(list(rows.values()))]
    assert widths == [
        *(("float, 1 weight", 100), ("float16, 1 weight", 400), ("another's, 1 weight", 0)),
        *(("8 bits, 1 weight", 2000), ("4 bits, 1 weight", 500)),
    ]


def test_the_rest_is_summed_to_the_byte():
    rows = [Size(f"w{number}", 8 * size, size) for number, size in enumerate(range(300, 0, -1))]
    found = top(rows)
    assert len(found.shown) == MOST_ROWS
    assert found.rest is not None
    assert sum(row.after for row in found.shown) + found.rest.after == sum(row.after for row in rows)
    assert found.count + len(found.shown) == len(found.all) == 300
    assert top(rows[:MOST_ROWS]).rest is None


def test_floats_too_small_to_matter_are_summed():
    found = top(floats({"left_in_float": [left("tiny", 4), left("large", 4096)]}), least=1024)
    assert [row.name for row in found.shown] == ["large"]
    assert found.count == 1
