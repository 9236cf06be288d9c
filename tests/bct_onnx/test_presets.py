"""Every preset goes with every lowering; what a user asks for comes first."""

import pytest

from bct_onnx import BctError
from bct_onnx.presets import PRESETS, SCALED_BLOCK, Request
from passes import LOWERINGS


@pytest.mark.parametrize("lowering", ["auto", *LOWERINGS])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_goes_with_every_lowering(preset: str, lowering: str) -> None:
    Request(preset, lowering=lowering)


def test_scales_of_their_own_ask_for_larger_blocks_than_shifts() -> None:
    assert Request("balanced", lowering="packed")._options("packed").block_size == SCALED_BLOCK
    assert Request("balanced", block_size=64)._options("packed").block_size == 64


def test_what_a_lowering_cannot_do_is_refused() -> None:
    with pytest.raises(BctError, match="packed weights take a block size of"):
        Request(block_size=24, lowering="packed")
