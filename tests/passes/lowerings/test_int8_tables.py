"""Tables of int8 rows beside packed weights: looked up, multiplied in both forms, and in the file once."""

import numpy as np
import pytest

from passes.formats.block import decode
from passes.formats.encode import encode
from passes.functions.quantize_rows import LONGEST_SUM
from passes.graph.features import Feature
from passes.lowerings.both import MOST_ROWS, Both
from passes.lowerings.packed import Packed
from passes.options import Options
from tests.helpers import activation_bound, constant_nodes, model, nodes, operators, optimized, plain, random, rewrite
from tests.helpers import run as run_model
from tests.passes.lowerings.test_both import forced
from tests.passes.lowerings.test_lowerings import lookup, product

WIDTHS = range(2, 8)
TIED = """g (int64[b, s] ids) => (float[b, s, 600] y) {
    x = Gather(t, ids)
    w = Transpose <perm = [1, 0]> (t)
    y = MatMul(x, w)
}"""
every_lowering = pytest.mark.parametrize("lowering", [Packed(), Both()], ids=["packed", "both"])


def table(lowering, bits, k=64, rows=24):
    return encode(random(k, rows, seed=k), lowering.table_format(bits, 32, k, 18))


@every_lowering
@pytest.mark.parametrize("bits", WIDTHS)
def test_a_table_has_any_width_where_its_codes_unpack(lowering, bits):
    fmt = lowering.table_format(bits, 32, 64, 18)
    assert (fmt.bits, fmt.whole_bytes, fmt.trellis) == (bits, True, bits < 7)
    older = lowering.table_format(bits, 32, 64, 17)
    assert older == lowering.format(lowering.width(bits), 32, 64).centered


@every_lowering
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("k", [64, 36])
def test_rows_are_those_of_the_codes(tmp_path, lowering, bits, k):
    tensor = table(lowering, bits, k)
    ids = np.array([[0, 23], [7, 7]])
    for optimize in (False, True):
        (rows,) = run_model(lookup(tmp_path, lowering, tensor), optimize, x=ids)
        np.testing.assert_allclose(rows, decode(tensor).T[ids], rtol=2e-7)


@every_lowering
@pytest.mark.parametrize("bits", [*WIDTHS, 8])
def test_the_bytes_that_few_rows_are_multiplied_with_are_the_table(tmp_path, lowering, bits):
    """The kernel's activations are floats at level 0: a unit matrix shows the weight."""
    tensor = table(lowering, bits)
    proto = forced(plain(product(tmp_path, lowering, tensor, by_rows=True)), many=False)
    for node in nodes(proto.graph):
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    (y,) = run_model(proto, optimize=False, x=np.eye(64, dtype=np.float32))
    np.testing.assert_allclose(y, decode(tensor), rtol=1e-6)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("optimize", [False, True])
def test_the_number_of_rows_chooses(tmp_path, bits, optimize):
    tensor = table(Both(), bits)
    proto = product(tmp_path, Both(), tensor, by_rows=True)
    few, many = (forced(plain(product(tmp_path, Both(), tensor, by_rows=True)), each) for each in (False, True))
    for rows in (1, MOST_ROWS[8], MOST_ROWS[8] + 1, 9):
        x = random(rows, 64, seed=rows)
        (y,), (expected,) = (
            run_model(proto, optimize, x=x),
            run_model(many if rows > MOST_ROWS[8] else few, optimize, x=x),
        )
        np.testing.assert_array_equal(y, expected)
        assert np.all(np.abs(y - x @ decode(tensor)) <= activation_bound(x, decode(tensor)) + 1e-5)


@every_lowering
@pytest.mark.parametrize(("k", "lacks"), [(36, frozenset()), (64, frozenset({Feature.NBITS_8}))])
def test_tables_without_bytes_for_the_kernel_are_int8(tmp_path, lowering, k, lacks):
    lowering = type(lowering)(lacks=lacks)
    proto = product(tmp_path, lowering, table(lowering, 5, k), by_rows=True)
    assert "MatMulNBits" not in operators(plain(proto))
    x = random(3, k)
    weight = decode(table(lowering, 5, k))
    assert np.all(np.abs(run_model(proto, x=x)[0] - x @ weight) <= activation_bound(x, weight) + 1e-5)


def test_sums_too_long_for_integers_stay_packed(tmp_path):
    k = LONGEST_SUM // 16 * 16 + 16
    tensor = table(Both(), 4, k, 2)
    assert "If" not in operators(plain(product(tmp_path, Both(), tensor, by_rows=True)))


@pytest.mark.parametrize("lowering", ["packed", "both"])
def test_a_tied_table_is_in_the_file_once_and_folds(tmp_path, lowering):
    weight = random(600, 64, seed=4)
    result = rewrite(model(TIED, t=weight), tmp_path, lowering=lowering, bits=4, table_bits=5, block_size=32)
    assert sum(len(t.raw_data) for t in result.proto.graph.initializer) < weight.size * 5.6 / 8
    assert constant_nodes(optimized(result.proto, tmp_path)) == []
    ids = np.array([[3, 599]])
    (y,) = run_model(result.proto, ids=ids)
    expected = weight[ids] @ weight.T
    assert np.linalg.norm(y - expected) < 0.08 * np.linalg.norm(expected)


def test_tables_have_a_width_of_their_own_unless_one_was_chosen():
    options = Options(bits=4, table_bits=5, bits_for={"t": 8}, lowering="packed")
    assert (options.table_width("u"), options.table_width("t"), options.width("u")) == (5, 8, 4)
    assert options.widths == {4, 5, 8}
    assert Options(bits=4).table_width("u") == 4
