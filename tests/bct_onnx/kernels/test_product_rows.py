"""Products whose results leave as quantized rows: to the bit what the two calls give, one after the other."""

import numpy as np
import pytest

from passes.functions.endings import CHAINS, Ending
from passes.functions.function import FUNCTIONS
from tests.bct_onnx.kernels.calls import Array, call, run, session
from tests.bct_onnx.kernels.test_endings import ALPHA, product

ABOVE = {"least_peak": 1.5, "step": 1 / 223}
CURVED = [chain for chain in CHAINS if chain[-1].name in ("Relu", "Gelu", "GeluTanh", "Silu", "QuickGelu")]
SUMMED = [chain for chain in CHAINS if chain[-1].name == "Residual"]
KINDS = [(chain, like) for chain in (*CURVED, *SUMMED) for like in ("", "Like")]
KINDS += [(chain, f"Even{like}") for chain in SUMMED for like in ("", "Like")]


def named(chain: tuple[Ending, ...]) -> str:
    return "BlockMatMul8" + "".join(ending.name for ending in chain)


def split_up(chain: tuple[Ending, ...], rows: tuple[int, ...], k: int, n: int, like: str):
    """Return the functions' names, what both take, attributes of both, and the sizes of what is quantized.

    `like` is "Like" where zero points are given, behind "Even" where there are two gains and biases.
    """
    even, like = ("Even" if "Even" in like else ""), like.removeprefix("Even")
    numbers = np.random.default_rng(n)
    feeds, constants, plain = product(rows, k, n, seed=n)
    given = {ending.given for ending in chain}
    if "bias" in given:
        constants["bias"] = numbers.standard_normal(n).astype(np.float32)
    if "residual" in given:
        feeds["residual"] = numbers.standard_normal(plain.shape).astype(np.float32)
    first = {"zero_point": 128, "tensor_scale": 0.5} | ({"alpha": ALPHA} if "QuickGelu" in chain[-1].name else {})
    zeros = {"zeros": np.full((*rows, 1), 32, np.uint8)} if like else {}
    if "residual" in given:
        second, attributes = f"LayerNormalization{even}QuantizeRows{like}", {"epsilon": 1e-5, "block_size": n}
        names = ("gain", "bias", "even_gain", "even_bias")[: 4 if even else 2]
        parameters = {key: numbers.standard_normal(n).astype(np.float32) for key in names}
    else:
        second, attributes = f"QuantizeRowsAbove{like}", {"zero_point": 32, "block_size": n, **ABOVE}
        parameters = {}
    return second, feeds, constants, first, zeros, attributes, parameters


def together(chain: tuple[Ending, ...], rows: tuple[int, ...], k: int, n: int, like: str):
    """Return the model of the call that does both, and what it is fed."""
    second, feeds, constants, first, zeros, attributes, parameters = split_up(chain, rows, k, n, like)
    renamed = {"next_zero_point" if key == "zero_point" else key: value for key, value in attributes.items()}
    offset = {"offset" if key == "bias" else key: value for key, value in parameters.items()}
    return call(named(chain) + second, feeds | zeros, constants | offset, first | renamed), feeds | zeros


def apart(chain: tuple[Ending, ...], rows: tuple[int, ...], k: int, n: int, like: str, **how) -> list[Array]:
    """Return what the two calls give."""
    second, feeds, constants, first, zeros, attributes, parameters = split_up(chain, rows, k, n, like)
    (x,) = run(call(named(chain), feeds, constants, first), feeds, **how)
    return run(call(second, {"x": x, **zeros}, parameters, attributes), {"x": x, **zeros}, **how)


@pytest.mark.parametrize(("chain", "like"), KINDS, ids=[named(chain) + like for chain, like in KINDS])
@pytest.mark.usefixtures("processor")
def test_both_are_one_after_the_other(chain, like):
    """Few rows and many, which are shared out in other ways; k and n that nothing divides."""
    for rows, k, n in (((3,), 8, 1), ((2, 5), 72, 67), ((1, 33), 104, 200), ((500,), 72, 80)):
        model, feeds = together(chain, rows, k, n, like)
        for y, expected in zip(run(model, feeds), apart(chain, rows, k, n, like), strict=True):
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("chain", "like"), KINDS, ids=[named(chain) + like for chain, like in KINDS])
def test_bodies_say_the_same(chain, like):
    model, feeds = together(chain, (5, 7), 64, 48, like)
    expected = apart(chain, (5, 7), 64, 48, like, native=False, optimize="none")
    for y, each in zip(run(model, feeds, native=False, optimize="none"), expected, strict=True):
        np.testing.assert_array_equal(y, each)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("chain", [CURVED[1], SUMMED[1]], ids=named)
def test_rows_do_not_depend_on_their_neighbours(chain):
    model, feeds = together(chain, (450,), 96, 80, "")
    feeds["row_scale"][7], feeds["row_scale"][8], feeds["row_scale"][9] = np.nan, 3e38, 0
    native = session(model)
    everything = native.run(None, feeds)
    for row in (0, 7, 8, 9, 129, 449):
        alone = native.run(None, {key: value[row : row + 1] for key, value in feeds.items()})
        for one, all_rows in zip(alone, everything, strict=True):
            np.testing.assert_array_equal(one, all_rows[row : row + 1])


@pytest.mark.parametrize("batches", [False, True])
def test_residuals_broadcast(batches):
    """A residual of other axes, or a weight for each matrix: floats are all there before they become codes."""
    second, feeds, constants, first, _, attributes, parameters = split_up(SUMMED[0], (2, 3), 16, 5, "")
    if batches:
        constants = {"weight": np.stack([constants["weight"]] * 2), "scale": np.stack([constants["scale"][None]] * 2)}
    else:
        feeds["residual"] = np.concatenate([feeds["residual"][:1]] * 1)
    (x,) = run(call(named(SUMMED[0]), feeds, constants, first), feeds)
    expected = run(call(second, {"x": x}, parameters, attributes), {"x": x})
    offset = {"gain": parameters["gain"], "offset": parameters["bias"]}
    model = call(named(SUMMED[0]) + second, feeds, constants | offset, first | attributes)
    for y, each in zip(run(model, feeds), expected, strict=True):
        np.testing.assert_array_equal(y, each)


@pytest.mark.parametrize(
    ("index", "other"),
    [(0, {"next_zero_point": 256}), (1, {"gain": np.ones(1, np.float32)}), (1, {"offset": np.ones(9, np.float32)})],
)
def test_what_does_not_fit_is_an_error(index, other):
    chain = (CURVED[1], SUMMED[0])[index]
    second, feeds, constants, first, _, attributes, parameters = split_up(chain, (2,), 8, 4, "")
    renamed = {"next_zero_point" if key == "zero_point" else key: value for key, value in attributes.items()}
    offset = {"offset" if key == "bias" else key: value for key, value in parameters.items()}
    name = named(chain) + second
    inputs = FUNCTIONS[name].inputs.split(", ")
    offset |= {key: value for key, value in other.items() if key in inputs}
    renamed |= {key: value for key, value in other.items() if key not in inputs}
    with pytest.raises(Exception, match=name):
        run(call(name, feeds, constants | offset, first | renamed), feeds)
