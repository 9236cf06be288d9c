"""Every line of the table of operators, against what ONNX Runtime computes of a small model of it."""

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from passes.functions.function import DOMAIN
from passes.graph.follow import find_shapes
from passes.graph.operators import OPERATORS, Trait
from passes.graph.tidy import lift_constant_nodes
from passes.graph.types import element_type
from tests.helpers import model, session
from tests.passes.graph.operator_cases import CASES, NOT_RUN, X, Z

SIZES = {"b": 2, "s": 3, "m": 6}
RUN = sorted(name for name in OPERATORS.keys() - NOT_RUN.keys() if not name.startswith(DOMAIN))
# Of the newest operators, and of the others, not all of whose newer versions the runtime has.
NEWEST, OPSET, IR_VERSION = 24, 21, 11


def small(name):
    """Return a model of an operator; one of floats has inputs x and z, or x alone."""
    if name in CASES:
        inputs, body = CASES[name]
    elif (onnx.defs.has(name) and onnx.defs.get_schema(name).min_input == 2) or name in ("Max", "Min", "Mean", "Sum"):
        inputs, body = f"{X}, {Z}", f"y = {name}(x, z)"
    else:
        inputs, body = X, f"y = {name}(x)"
    old = "." in name or onnx.defs.has(name, OPSET) or not onnx.defs.has(name)
    proto = model(f"g ({inputs}) => (y) {{ {body} }}", OPSET if old else NEWEST, IR_VERSION)
    made = [output for output in proto.graph.node[-1].output if output.startswith("y")]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=output) for output in made)
    return proto


def feeds_of(proto, seed=0):
    rng, feeds = np.random.default_rng(seed), {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        shape = [SIZES.get(d.dim_param, d.dim_value) for d in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        # Whole numbers are codes, or places of axes of two at least; scales are above 0.
        values = rng.standard_normal(shape) if dtype.kind == "f" and shape else rng.integers(0, 2, shape)
        feeds[value.name] = np.asarray(values if shape else 0.05 if dtype.kind == "f" else 1, dtype)
    return feeds


def compute(proto, feeds):
    return dict(zip([o.name for o in proto.graph.output], session(proto, optimize=False).run(None, feeds), strict=True))


def number_of(size):
    """Return a size in numbers, None where it is not known."""
    if size is None or "?" in str(size):
        return None
    return sum(factor * math.prod(SIZES[name] for name in names) for names, factor in size.terms)


def with_trait(trait):
    return [name for name in RUN if trait in OPERATORS[name].traits]


def floats(name):
    """Return a model whose x and first output are floats, and its feeds; skip others."""
    proto = small(name)
    feeds = feeds_of(proto)
    y = compute(proto, feeds)["y"]
    if feeds["x"].dtype != np.float32 or y.dtype != np.float32:
        pytest.skip("of codes")
    return proto, feeds, y


@pytest.mark.parametrize("name", RUN)
def test_shapes_and_types_are_those_of_a_run(name):
    proto = small(name)
    results = compute(proto, feeds_of(proto))
    graph = gs.import_onnx(proto)
    lift_constant_nodes(graph)
    for output in graph.outputs:
        output.shape = output.dtype = None
    found = find_shapes(graph)
    for output in graph.outputs:
        shape, array = found.shape(output), results[output.name]
        assert element_type(output) == array.dtype.name
        if OPERATORS[name].shapes is None:
            continue
        if shape is None:  # of outputs that are seldom read
            assert output.name != "y"
            continue
        assert len(shape) == array.ndim
        assert [n for size, n in zip(shape, array.shape, strict=True) if number_of(size) not in (None, n)] == []


# What y is made of, whose elements are followed: d is the shape [b, s, 12] of x.
ELEMENTS = {
    "Add": "y = Add(d, d)",
    "Cast": "y = Cast<to = 6>(d)",
    "Concat": "y = Concat<axis = 0>(two, d)",
    "ConstantOfShape": "y = ConstantOfShape<value = int64[1] {7}>(two)",
    "Div": "e = Mul(d, two) y = Div(e, d)",
    "Equal": "y = Equal(d, d)",
    "Gather": "y = Gather(d, one)",
    "Identity": "y = Identity(d)",
    "Mul": "y = Mul(d, d)",
    "Reshape": "y = Reshape(d, r)",
    "Shape": "y = Shape<start = -2>(x)",
    "Size": "y = Size(x)",
    "Slice": "y = Slice(d, one1, end)",
    "Squeeze": "e = Gather(d, one1) y = Squeeze(e)",
    "Sub": "e = Add(d, d) y = Sub(e, d)",
    "Unsqueeze": "y = Unsqueeze(d, one1)",
    "Where": "c = Equal(d, d) y = Where(c, d, two)",
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_those_of_a_run(name):
    constants = """d = Shape(x) two = Constant<value_ints = [2]>() one = Constant<value_int = 1>()
     one1 = Constant<value_ints = [1]>() r = Constant<value_ints = [3, 1]>() end = Constant<value_ints = [9]>()"""
    proto = model(f"g ({X}) => (y) {{ {constants} {ELEMENTS[name]} }}", OPSET, IR_VERSION)
    y = compute(proto, feeds_of(proto))["y"]
    graph = gs.import_onnx(proto)
    lift_constant_nodes(graph)
    values = find_shapes(graph).values(graph.outputs[0])
    assert [number_of(size) for size in values.reshape(-1)] == y.reshape(-1).tolist()
    assert values.shape == y.shape


def test_all_that_follow_elements_are_tried():
    assert {name for name, each in OPERATORS.items() if each.values or each.sizes} == ELEMENTS.keys()


@pytest.mark.parametrize("name", [name for name in RUN if OPERATORS[name].function and name not in ("Cast", "Equal")])
def test_functions_are_those_of_a_run(name):
    function, text = OPERATORS[name].function, small(name)
    if Trait.REDUCES in OPERATORS[name].traits:
        text = model(f"g ({X}) => (y) {{ a = Constant<value_ints = [-1]>() y = {name}(x, a) }}", OPSET, IR_VERSION)
    feeds = {key: np.asarray(np.abs(value)) for key, value in feeds_of(text).items()}
    over = {"axis": -1, "keepdims": True} if Trait.REDUCES in OPERATORS[name].traits else {}
    y = np.asarray(function(*feeds.values(), **over), np.float32)
    np.testing.assert_allclose(compute(text, feeds)["y"], y, 1e-5)


@pytest.mark.parametrize("name", with_trait(Trait.ELEMENTWISE))
def test_elementwise_is_place_by_place(name):
    proto = small(name)
    feeds = feeds_of(proto)
    before = compute(proto, feeds)["y"]
    feeds["x"] = feeds["x"].copy()
    feeds["x"][0, 0] = feeds["x"][1, 0]
    changed = ~np.isclose(compute(proto, feeds)["y"], before, rtol=0, atol=0, equal_nan=True)
    assert not changed[1:].any() and not changed[0, 1:].any()
    assert before.shape == feeds["x"].shape


@pytest.mark.parametrize("name", with_trait(Trait.MIXES))
def test_mixing_spreads_nan_over_a_row(name):
    proto, feeds, y = floats(name)
    if len([*y.shape]) != feeds["x"].ndim or "heads" in str(proto):
        pytest.skip("heads are rows of their own")
    feeds["x"][(0,) * (feeds["x"].ndim)] = np.nan
    spread = np.isnan(compute(proto, feeds)["y"])
    assert np.array_equal(spread.any(-1), spread.all(-1))


@pytest.mark.parametrize("name", with_trait(Trait.KEEPS_ROWS))
def test_rows_are_kept(name):
    proto = small(name)
    feeds = feeds_of(proto)
    assert compute(proto, feeds)["y"].shape[:-1] == feeds["x"].shape[:-1]


@pytest.mark.parametrize("name", with_trait(Trait.NOT_NEGATIVE))
def test_not_negative_is_not(name):
    assert np.nanmin(floats(name)[2]) >= 0


@pytest.mark.parametrize("name", with_trait(Trait.BOUNDED))
def test_bounded_is_moderate(name):
    proto, feeds, _ = floats(name)
    feeds["x"] = feeds["x"] * np.float32(1e4)
    assert np.abs(compute(proto, feeds)["y"]).max() <= 1


@pytest.mark.parametrize("name", [name for name in RUN if OPERATORS[name].moves])
def test_moved_values_are_values_of_the_inputs(name):
    proto = small(name)
    feeds = feeds_of(proto)
    y, dtype = compute(proto, feeds)["y"], None
    moved = [feeds[key] for key in list(proto.graph.node[-1].input)[OPERATORS[name].moves] if key in feeds]
    dtype = y.dtype
    # What is filled up is 0; a Cast may round.
    assert np.isin(y, np.concatenate([np.zeros(1, dtype), *(each.reshape(-1).astype(dtype) for each in moved)])).all()


@pytest.mark.parametrize("name", sorted({*with_trait(Trait.RANDOM)} - {"Dropout", "Bernoulli"}))
def test_random_is_not_the_same_twice(name):
    proto = small(name)
    feeds = feeds_of(proto)
    runs = session(proto, optimize=False)
    assert not np.array_equal(runs.run(["y"], feeds), runs.run(["y"], feeds))


@pytest.mark.parametrize("name", sorted({*with_trait(Trait.SHAPES)} - {*with_trait(Trait.RANDOM)}))
def test_values_do_not_matter_where_shapes_are_looked_at(name):
    proto = small(name)
    assert np.array_equal(compute(proto, feeds_of(proto))["y"], compute(proto, feeds_of(proto, seed=1))["y"])
