"""What follows a product in its call: sums to the bit, curves within their bound, alone or beside other rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.functions import block_matmul, endings
from passes.functions.endings import CHAINS, CURVE_BOUND, Ending
from tests.bct_onnx.kernels.calls import Array, call, run, session

# Error of the runtime's own curves, its tanh the worst.
STOCK_BOUND = 2e-6
LINEAR = {"Bias", "Residual", "Relu"}
NAMES = ["".join(ending.name for ending in chain) for chain in CHAINS]
ALPHA = 1.702


def attributes(chain: tuple[Ending, ...]) -> dict[str, Any]:
    alpha = {"alpha": ALPHA} if "QuickGelu" in chain[-1].name else {}
    return {"zero_point": 128, "tensor_scale": 0.5, **alpha}


def product(rows: tuple[int, ...], k: int, n: int, seed: int) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Return what is fed and what is constant, and the product itself, of about 2."""
    numbers = np.random.default_rng(seed)
    feeds = {
        "q": numbers.integers(0, 256, (*rows, k)).astype(np.uint8),
        "row_scale": (numbers.random((*rows, 1)) + 0.1).astype(np.float32),
    }
    weight = numbers.integers(-128, 128, (k, n)).astype(np.int8)
    scale = (numbers.random(n) * 1e-3 / np.sqrt(k)).astype(np.float32)
    constants = {"weight": weight, "scale": scale}
    return feeds, constants, block_matmul.reference(feeds["q"], feeds["row_scale"], weight, scale, 128, 0.5)


def given_to(chain: tuple[Ending, ...], shape: tuple[int, ...], seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return a residual that is fed, and a bias that is constant, where a chain has them."""
    numbers, names = np.random.default_rng(seed), {ending.given for ending in chain}
    residual = {"residual": numbers.standard_normal(shape).astype(np.float32)} if "residual" in names else {}
    bias = {"bias": numbers.standard_normal((1, shape[-1])).astype(np.float32)} if "bias" in names else {}
    return residual, bias


def hold(y: Array, expected: Array, chain: tuple[Ending, ...], bound: float = CURVE_BOUND) -> None:
    if {ending.name for ending in chain} <= LINEAR:
        assert np.array_equal(y, expected, equal_nan=True)
    else:
        error = np.abs(y.astype(np.float64) - expected)
        assert (error <= bound + 4 * np.spacing(np.abs(expected))).all()


@pytest.mark.parametrize("chain", CHAINS, ids=NAMES)
@pytest.mark.usefixtures("processor")
def test_every_ending_is_the_reference(chain):
    for rows, k, n in (((3,), 8, 1), ((1, 1), 104, 67), ((5, 7), 72, 128), ((70,), 200, 200)):
        feeds, constants, plain = product(rows, k, n, seed=n)
        residual, bias = given_to(chain, plain.shape, 3)
        model = call(f"BlockMatMul8{NAMES[CHAINS.index(chain)]}", feeds | residual, constants | bias, attributes(chain))
        expected = endings.reference(plain, chain, {**residual, **bias, "alpha": ALPHA})
        for optimize in ("all", "none"):
            hold(run(model, feeds | residual, optimize=optimize)[0], expected, chain)


@pytest.mark.parametrize("chain", CHAINS, ids=NAMES)
def test_bodies_say_the_same(chain):
    feeds, constants, plain = product((5, 7), 64, 48, 1)
    residual, bias = given_to(chain, plain.shape, 3)
    model = call(f"BlockMatMul8{NAMES[CHAINS.index(chain)]}", feeds | residual, constants | bias, attributes(chain))
    expected = endings.reference(plain, chain, {**residual, **bias, "alpha": ALPHA})
    hold(run(model, feeds | residual, native=False, optimize="none")[0], expected, chain, STOCK_BOUND)


@pytest.mark.parametrize("chain", [chain for chain in CHAINS if len(chain) == 1], ids=lambda chain: chain[0].name)
@pytest.mark.usefixtures("processor")
def test_every_number(chain):
    """Zero, tiny, huge, none at all: through a weight of ones, the row scale is what the ending gets."""
    x = np.concatenate([np.linspace(-20, 20, 4001), [0, -0.0, 1e-45, -1e-41, 3e38, -3e38, np.inf, -np.inf, np.nan]])
    feeds = {"q": np.full((len(x), 1), 129, np.uint8), "row_scale": x.astype(np.float32)[:, None]}
    constants = {"weight": np.ones((1, 3), np.int8), "scale": np.ones(3, np.float32)}
    residual, bias = given_to(chain, (len(x), 3), 3)
    model = call(
        f"BlockMatMul8{chain[0].name}", feeds | residual, constants | bias, attributes(chain) | {"tensor_scale": 1.0}
    )
    with np.errstate(all="ignore"):
        plain = np.repeat(feeds["row_scale"], 3, axis=1)
        expected = endings.reference(plain, chain, {**residual, **bias, "alpha": ALPHA})
        (y,) = run(model, feeds | residual)
        finite = np.isfinite(expected)
        assert np.array_equal(y[~finite], expected[~finite], equal_nan=True)
        hold(y[finite], expected[finite], chain)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("name", ["BiasGelu", "BiasResidual", "Silu"])
def test_rows_do_not_depend_on_their_neighbours(name):
    chain = CHAINS[NAMES.index(name)]
    feeds, constants, plain = product((67,), 96, 80, 1)
    residual, bias = given_to(chain, plain.shape, 3)
    native = session(call(f"BlockMatMul8{name}", feeds | residual, constants | bias, attributes(chain)))
    (together,) = native.run(None, feeds | residual)
    for row in (0, 1, 40, 66):
        (alone,) = native.run(None, {key: value[row : row + 1] for key, value in (feeds | residual).items()})
        assert np.array_equal(alone, together[row : row + 1])


@given(
    st.lists(st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 1), (0, 1), (1, 0)]), min_size=1, max_size=3), st.booleans()
)
@settings(max_examples=30)
def test_residuals_broadcast(axes, batches):
    """Axes of one, on either side: as the body has it."""
    left, right = zip(*axes, strict=True)
    feeds, constants, plain = product(left, 16, 5, 1)
    if batches:
        constants = {"weight": np.stack([constants["weight"]] * 1), "scale": constants["scale"][None, None]}
        plain = plain[None] if len(left) == 1 else plain
        right = (1, *right) if len(left) == 1 else right
        if len(left) == 1:
            feeds = {name: value[None] for name, value in feeds.items()}
    residual = {"residual": np.random.default_rng(0).standard_normal((*right, 5)).astype(np.float32)}
    model = call("BlockMatMul8Residual", feeds | residual, constants, {"zero_point": 128, "tensor_scale": 0.5})
    (y,) = run(model, feeds | residual)
    assert np.array_equal(y, plain + residual["residual"])


HOSTILE: dict[str, tuple[str, dict[str, Array]]] = {
    "bias": ("BlockMatMul8Bias", {"bias": np.zeros(3, np.float32)}),
    "bias of one": ("BlockMatMul8Bias", {"bias": np.zeros(1, np.float32)}),
    "bias of rows": ("BlockMatMul8Bias", {"bias": np.zeros((2, 4), np.float32)}),
    "rank": ("BlockMatMul8Residual", {"residual": np.zeros((1, 2, 4), np.float32)}),
    "columns": ("BlockMatMul8Residual", {"residual": np.zeros((2, 1), np.float32)}),
    "rows": ("BlockMatMul8Residual", {"residual": np.zeros((3, 4), np.float32)}),
    "number": ("BlockMatMul8Residual", {"residual": np.zeros((), np.float32)}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_does_not_fit_is_an_error(what):
    name, other = HOSTILE[what]
    feeds, constants, _ = product((2,), 8, 4, 1)
    model = call(name, feeds | other, constants, {"zero_point": 128, "tensor_scale": 0.5})
    with pytest.raises(Exception, match=name):
        run(model, feeds | other)
