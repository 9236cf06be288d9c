"""Every benchmark begins: what it takes of the package is there."""

import importlib
import pkgutil

import pytest

import benchmarks

NAMES = sorted(
    module.name
    for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    if not module.name.rpartition(".")[2].startswith("run_")
)
# Not installed for development: benchmarks say how to.
OTHERS = {"onnxruntime_genai", "openvino", "sentence_transformers", "optimum"}


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OTHERS:
            raise
        pytest.skip(f"{error.name} is not installed")
