"""Gather on a constant table: rows of the decoded table, stored once for the projection that shares it, too."""

import numpy as np
import pytest

from tests.helpers import as_constant_nodes, decoded, model, operators, random, relative_error, rewrite, run

ROWS, K = 60, 40
TABLE = random(ROWS, K, seed=1)
IDS = np.array([[0, 59, 7], [7, 1, 0]])
LOOKUP = "g (int64[b, s] ids) => (float[b, s, 40] y) { y = Gather(t, ids) }"
TIED = """g (int64[b, s] ids) => (float[b, s, 60] y) {
    x = Gather(t, ids)
    %s
}"""
every_lowering = pytest.mark.parametrize("lowering", ["dense", "packed", "qdq"])


def table(lowering: str, values=TABLE, bits: int = 4):
    """Return the decoded table: a row is an output column of the projection, so its blocks lie along the row."""
    return decoded(values.T.copy(), bits, lowering=lowering, opset=21).T


@every_lowering
@pytest.mark.parametrize("constants", ["initializers", "nodes"])
def test_rows_are_those_of_the_decoded_table(tmp_path, lowering, constants):
    source = model(LOOKUP, t=TABLE)
    result = rewrite(as_constant_nodes(source) if constants == "nodes" else source, tmp_path, bits=4, lowering=lowering)
    assert result.replaced == {"gather": 1}
    for optimize in (False, True):
        # The runtime's powers are within a unit in the last place of the reference's.
        np.testing.assert_allclose(run(result.proto, optimize, ids=IDS)[0], table(lowering)[IDS], rtol=4e-7)


@every_lowering
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 0), (2, 1, 2)], ids=str)
def test_indices_of_any_shape(tmp_path, lowering, shape):
    dims = [f"d{i}" for i in range(len(shape))]
    ids_type = f"int64[{', '.join(dims)}]" if dims else "int64"
    text = f"g ({ids_type} ids) => (float[{', '.join([*dims, '40'])}] y) {{ y = Gather(t, ids) }}"
    result = rewrite(model(text, t=TABLE), tmp_path, lowering=lowering)
    ids = np.random.default_rng(0).integers(0, ROWS, shape)
    (y,) = run(result.proto, ids=ids)
    assert y.shape == (*shape, K)
    np.testing.assert_allclose(y, table(lowering, bits=8 if lowering == "qdq" else 6)[ids], rtol=4e-7)


@every_lowering
def test_indices_from_the_end(tmp_path, lowering):
    result = rewrite(model(LOOKUP, t=TABLE), tmp_path, lowering=lowering)
    np.testing.assert_array_equal(run(result.proto, ids=IDS - ROWS)[0], run(result.proto, ids=IDS)[0])


@every_lowering
def test_indices_of_32_bits(tmp_path, lowering):
    result = rewrite(model(LOOKUP.replace("int64", "int32"), t=TABLE), tmp_path, lowering=lowering)
    assert run(result.proto, ids=IDS.astype(np.int32))[0].shape == (2, 3, K)


@every_lowering
@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_float_types(tmp_path, lowering, name, dtype):
    values = random(200, K, seed=2).astype(dtype)
    result = rewrite(model(LOOKUP.replace("float", name), t=values), tmp_path, bits=4, lowering=lowering)
    (y,) = run(result.proto, ids=IDS)
    assert y.dtype == dtype
    rounding = 2**-10 if dtype == np.float16 else 4e-7
    np.testing.assert_allclose(y, table(lowering, values.astype(np.float32))[IDS], rtol=rounding)


@every_lowering
def test_a_last_axis_that_no_block_divides(tmp_path, lowering):
    values = random(30, 45, seed=3)
    result = rewrite(model(LOOKUP.replace("40", "45"), t=values), tmp_path, bits=4, lowering=lowering)
    ids = IDS % 30
    np.testing.assert_allclose(run(result.proto, ids=ids)[0], table(lowering, values)[ids], rtol=4e-7)


@every_lowering
@pytest.mark.parametrize(
    "projection",
    ["y = Gemm", "u = Transpose(t) y = MatMul(x, u)", "y = MatMul(x, copy)"],
    ids=["Gemm", "Transpose", "transposed copy"],
)
def test_a_tied_table_is_stored_once(tmp_path, lowering, projection):
    text = TIED % (projection if "MatMul" in projection else "u = Transpose(t) y = MatMul(x, u)")
    if "Gemm" in projection:
        text = """g (int64[b] ids) => (float[b, 60] y) { x = Gather(t, ids) y = Gemm <transB = 1> (x, t) }"""
    weights = {"t": TABLE} | ({"copy": TABLE.T.copy()} if "copy" in projection else {})
    result = rewrite(model(text, **weights), tmp_path, bits=4, lowering=lowering)
    stored = [tensor for report in result.reports.values() for tensor in report.tensors if tensor.lowering != "tied"]
    assert [tensor.name for tensor in stored] == ["t"]
    ids = IDS[0] if "Gemm" in projection else IDS
    rows = table(lowering)
    for optimize in (False, True):
        (y,) = run(result.proto, optimize, ids=ids)
        assert relative_error(y, rows[ids] @ rows.T) < 0.015  # of int8 activations; the codes' own error is 10 %


READ = "r = Gather(t, i) y = Add(x, r)"
SKIPS = {
    "its indices are constant: the session folds it": (
        f"g (float[2, 70, 40] x) => (float[2, 70, 40] y) {{ i = Constant <value_ints = {[3] * 70}> () {READ} }}",
        TABLE,
    ),
    "axis 1 of a table of shape [5, 20, 24]: what is looked up lies apart": (
        "g (int64[b] ids) => (float[5, b, 24] y) { y = Gather <axis = 1> (t, ids) }",
        TABLE.reshape(5, 20, 24),
    ),
    "axis 0 of a table of shape [2400]: what is looked up lies apart": (
        "g (int64[b] ids) => (float[b] y) { y = Gather(t, ids) }",
        TABLE.reshape(-1),
    ),
    "its table has 320 bytes, fewer than 4096": (LOOKUP.replace("40", "8"), random(10, 8)),
    "its weight holds NaN or infinity": (LOOKUP, np.full_like(TABLE, np.inf)),
    "kept by the pattern 'embed'": (LOOKUP, TABLE),
}


@pytest.mark.parametrize("reason", SKIPS)
def test_what_is_left_and_why(tmp_path, reason):
    text, values = SKIPS[reason]
    source = model(text, t=values)
    for node in source.graph.node:
        node.name = f"embed/{node.op_type}"
    result = rewrite(source, tmp_path, keep=("embed",) if "kept" in reason else ())
    assert result.skips("gather") == {"embed/Gather": reason}
    assert "Gather" in operators(result.proto)


def test_a_negative_axis_is_that_of_rows(tmp_path):
    text = "g (int64[b] ids) => (float[b, 40] y) { y = Gather <axis = -2> (t, ids) }"
    assert rewrite(model(text, t=TABLE), tmp_path).replaced == {"gather": 1}


def test_integer_tables_are_none(tmp_path):
    source = model(LOOKUP.replace("float", "int64"), t=np.arange(ROWS * K).reshape(ROWS, K))
    assert rewrite(source, tmp_path).reports["gather"].skipped == []


def test_a_table_of_whole_numbers_is_exact(tmp_path):
    """Looked up, cast and used as indices: 0.9997 would be another row."""
    table = np.random.default_rng(0).integers(0, 700, (300, 40)).astype(np.float32)
    source = model("g (int64[m] i) => (int64[m, 40] y) { f = Gather(t, i) y = Cast<to = 7>(f) }", t=table)
    result = rewrite(source, tmp_path)
    assert "whole numbers" in result.skips("gather")["Gather"]
    indices = np.arange(300)
    np.testing.assert_array_equal(run(result.proto, i=indices)[0], table.astype(np.int64))
    assert len(result.proto.SerializeToString()) < 0.6 * len(source.SerializeToString())


@pytest.mark.parametrize(
    ("lowering", "bits", "block"), [("dense", 8, 0), ("dense", 4, 8), ("packed", 8, 32), ("qdq", 8, 32)]
)
@pytest.mark.parametrize("large", [20, 300, 1e6])
def test_large_columns_leave_the_digits_of_the_others(tmp_path, large, lowering, bits, block):
    table = random(200, 64, seed=3)
    table[:, [5, 40]] *= np.float32(large)
    source = model("g (int64[m] i) => (float[m, 64] y) { y = Gather(t, i) }", t=table)
    (answer,) = run(rewrite(source, tmp_path, lowering=lowering, bits=bits, block_size=block).proto, i=np.arange(200))
    columns = np.linalg.norm(answer - table, axis=0) / np.linalg.norm(table, axis=0)
    assert columns.max() < (0.02 if bits == 8 else 0.25)


@every_lowering
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("inner", [(6,), (2, 3)], ids=str)
def test_experts_are_all_their_rows(tmp_path, lowering, inner, shape):
    values = random(5, *inner, K, seed=4)
    dims = [f"d{i}" for i in range(len(shape))]
    ids_type = f"int64[{', '.join(dims)}]" if dims else "int64"
    y_type = f"float[{', '.join([*dims, *map(str, inner), str(K)])}]"
    text = f"g ({ids_type} ids) => ({y_type} y) {{ y = Gather(t, ids) }}"
    result = rewrite(model(text, t=values), tmp_path, bits=4, lowering=lowering)
    assert result.replaced == {"gather": 1}
    ids = np.random.default_rng(0).integers(-5, 5, shape)
    expected = table(lowering, values.reshape(-1, K)).reshape(values.shape)[ids]
    np.testing.assert_allclose(run(result.proto, ids=ids)[0], expected, rtol=4e-7)


@every_lowering
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("axis", [1, -1])
def test_rows_along_the_last_axis(tmp_path, lowering, shape, axis):
    dims = [f"d{i}" for i in range(len(shape))]
    ids_type = f"int64[{', '.join(dims)}]" if dims else "int64"
    text = f"g ({ids_type} ids) => (float[{', '.join(['40', *dims])}] y) {{ y = Gather <axis = {axis}> (t, ids) }}"
    result = rewrite(model(text, t=TABLE.T.copy()), tmp_path, bits=4, lowering=lowering)
    assert result.replaced == {"gather": 1}
    ids = np.random.default_rng(0).integers(0, ROWS, shape)
    np.testing.assert_allclose(run(result.proto, ids=ids)[0], table(lowering).T[:, ids], rtol=4e-7)


@pytest.mark.parametrize(
    "between",
    ["u = Cast <to = 1> (t) v = Transpose(u)", "v0 = Transpose(t) v = Cast <to = 1> (v0)"],
)
def test_a_tied_table_behind_a_cast_is_stored_once(tmp_path, between):
    text = f"""g (int64[b] ids) => (float[b, 60] y) {{
        h = Gather(t, ids) x = Cast <to = 1> (h) {between} y = MatMul(x, v)
    }}"""
    result = rewrite(model(text, t=TABLE.astype(np.float16)), tmp_path, bits=8, block_size=0)
    assert [tensor.name for report in result.reports.values() for tensor in report.tensors] == ["t"]
    rows = TABLE.astype(np.float16).astype(np.float32)
    assert relative_error(run(result.proto, ids=IDS[0])[0], rows[IDS[0]] @ rows.T) < 0.02
