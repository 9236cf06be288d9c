"""A slice of the fuzz campaign: `python -m benchmarks.fuzz` runs all of it."""

import math

import pytest

from benchmarks.common import FIXTURES
from benchmarks.fuzz import generate, mutate
from benchmarks.fuzz.__main__ import cases
from benchmarks.fuzz.campaign import campaign, generated, run


def test_the_slice_ends_well() -> None:
    models = sorted(FIXTURES.glob("*.onnx"))
    endings = list(campaign(cases(5, 20, 77, models), math.inf))
    assert len(endings) == 25
    assert [ending for ending in endings if not ending.good] == []


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_are_compressed(seed: int) -> None:
    assert run(generated(seed)).outcome in {"verified", "exit 1"}


def test_seeds_give_the_same_cases() -> None:
    fixture = FIXTURES / "bert_torchscript_eager.onnx"
    assert generate.model(3).SerializeToString() == generate.model(3).SerializeToString()
    assert mutate.mutate(fixture, 4) == mutate.mutate(fixture, 4)
    assert mutate.mutate(fixture, 4) != fixture.read_bytes()
