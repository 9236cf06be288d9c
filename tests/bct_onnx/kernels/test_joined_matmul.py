"""BlockMatMulJoined*: parts of several widths side by side, to the bit what the reference says of the whole weight."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from passes.functions import block_matmul, endings
from passes.functions.function import FUNCTIONS
from passes.functions.joined_matmul import STORED, joined
from passes.functions.unpack import PACKINGS
from tests.bct_onnx.kernels.calls import Array, call, run, session
from tests.bct_onnx.kernels.test_products import rows, scales, weight


def parts(suffixes: tuple[str, ...], k: int, columns: tuple[int, ...]) -> tuple[Array, dict[str, Any], dict[str, Any]]:
    """Return a weight whose parts have so many columns, its constants, and the attributes of its call."""
    matrices, constants, attributes = [], {}, {}
    for number, (suffix, n) in enumerate(zip(suffixes, columns, strict=True)):
        if suffix == STORED:
            matrices.append(np.random.default_rng(number).integers(-128, 128, (k, n)).astype(np.int8))
            constants[f"weight{number}"] = matrices[-1]
            continue
        matrix, own, attrs = weight(PACKINGS[suffix], k, n, seed=number)
        matrices.append(matrix)
        for name, value in own.items():
            constants[f"{name}{number}"] = value
            if not isinstance(value, np.ndarray):
                value.name = f"{name}{number}"
        attributes |= {f"{name}{number}": value for name, value in attrs.items()}
    return np.concatenate(matrices, axis=1), constants, attributes


def model_of(suffixes: tuple[str, ...], k: int, columns: tuple[int, ...], product: str = "BlockMatMul8", **more: Array):
    """Return the model of a call, its feeds, and what the reference says of the product alone."""
    matrix, constants, attributes = parts(suffixes, k, columns)
    feeds, scale = rows((5, k), 2), scales(matrix.shape[1], np.float16, 1)
    name = joined(FUNCTIONS[product], suffixes).name
    attributes |= {"zero_point": 128, "tensor_scale": 0.5}
    expected = block_matmul.reference(feeds["q"], feeds["row_scale"], matrix, scale, 128, 0.5)
    return call(name, feeds, {**constants, "scale": scale, **more}, attributes), feeds, expected


@pytest.mark.parametrize(
    "suffixes, columns",
    [
        (("2Trellis", "2Trellis", "5Trellis"), (64, 64, 128)),
        (("4Trellis", "6Trellis"), (3, 130)),
        (("8", "3Trellis", "8"), (65, 1, 64)),
        (("4Lanes", "7Lanes", "4Trellis", "8"), (8, 8, 8, 200)),
        (("5", "7"), (64, 40)),
    ],
)
@pytest.mark.usefixtures("processor")
def test_parts_are_the_whole_to_the_bit(suffixes, columns):
    for k in (8, 104):
        model, feeds, expected = model_of(suffixes, k, columns)
        for optimize in ("all", "none"):
            (y,) = run(model, feeds, optimize=optimize)
            assert np.array_equal(y, expected)


@given(st.data())
@example(None)
@settings(max_examples=15, deadline=None)
def test_any_parts(data):
    kinds = st.sampled_from([*(suffix for suffix in PACKINGS if not PACKINGS[suffix].has_int4), STORED])
    suffixes = ("2Trellis",) * 12 if data is None else tuple(data.draw(st.lists(kinds, min_size=2, max_size=4)))
    columns = (7,) * 12 if data is None else tuple(data.draw(st.integers(1, 140)) for _ in suffixes)
    model, feeds, expected = model_of(suffixes, 24, columns)
    (y,) = run(model, feeds)
    assert np.array_equal(y, expected)
    (body,) = run(model, feeds, native=False)
    assert np.array_equal(body, expected)


def test_endings_follow():
    bias = np.linspace(-1, 1, 96).astype(np.float32)
    model, feeds, product = model_of(("3Trellis", "5Trellis"), 16, (32, 64), "BlockMatMul8Bias", bias=bias)
    (y,) = run(model, feeds)
    assert np.array_equal(y, endings.reference(product, (endings.BIAS,), {"bias": bias}))


def test_parts_that_differ_in_k_are_an_error():
    model, feeds, _ = model_of(("3Trellis", "8"), 16, (32, 64))
    (weight,) = (each for each in model.graph.initializer if each.name == "weight1")
    weight.CopyFrom(type(weight)(name="weight1", data_type=3, dims=[8, 64], raw_data=bytes(8 * 64)))
    with pytest.raises(Exception, match="parts of the weight differ in k"):
        session(model).run(None, feeds)


def test_names_that_list_no_parts_are_no_functions():
    with pytest.raises(ValueError, match="no parts"):
        joined(block_matmul.INT8, ("4Trellis",))
    with pytest.raises(ValueError, match="no parts"):
        joined(FUNCTIONS["BlockMatMul8Bias"], ("5", "8"))
