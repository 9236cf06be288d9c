"""Every preset goes with every lowering; what a user asks for comes first."""

import pytest

from bct_onnx import BctError
from bct_onnx.presets import PRESETS, SCALED_BLOCK, Request
from passes import DEFAULT_OPERATORS, LOWERINGS


@pytest.mark.parametrize("lowering", ["auto", *LOWERINGS])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_goes_with_every_lowering(preset: str, lowering: str) -> None:
    Request(preset, lowering=lowering)


def test_scales_of_their_own_ask_for_larger_blocks_than_shifts() -> None:
    assert Request("balanced", lowering="packed")._options("packed").block_size == SCALED_BLOCK
    assert Request("balanced", block_size=64)._options("packed").block_size == 64
    assert Request("fast")._options("packed").block_size == SCALED_BLOCK
    assert Request("fast", block_size=0)._options("packed").block_size == 0
    assert Request("fast")._options("qdq").block_size == 0


def test_what_a_lowering_cannot_do_is_refused() -> None:
    with pytest.raises(BctError, match="packed weights take a block size of"):
        Request(block_size=24, lowering="packed")


def test_seven_bits_take_the_place_of_eight_where_products_overflow() -> None:
    for preset, block_size in (("fast", 0), ("small", PRESETS["small"].block_size)):
        options = Request(preset, lowering="dense7").options_for("dense7", PRESETS[preset].bits)
        assert (options.bits, options.block_size) == (min(7, PRESETS[preset].bits), block_size)


def test_operators_are_added_to_those_for_weights_or_left_out_of_the_presets() -> None:
    def operators(*names: str) -> frozenset[str]:
        return Request("fast", operators=names)._options("dense").operators

    assert operators("gelu") == DEFAULT_OPERATORS | {"gelu"}
    assert operators("-attention", "-biases") == DEFAULT_OPERATORS - {"attention", "biases"}
    with pytest.raises(BctError, match="not both"):
        operators("gelu", "-biases")
    with pytest.raises(BctError, match="'bias' does not exist"):
        operators("-bias")


def test_biases_stay_outside_weights_whose_bits_are_searched() -> None:
    assert "absorb" in Request("small").options_for("dense", 4).operators
    assert "absorb" not in Request("small", searched=True).options_for("dense", 4).operators
