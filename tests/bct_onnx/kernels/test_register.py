"""Registering: what a file's functions call, or all there is."""

import numpy as np
import onnx
import pytest

from bct_onnx import kernels
from bct_onnx.sessions import Options, open_session
from passes.functions.function import DOMAIN
from tests.bct_onnx.kernels.calls import call

ENTRY = "bct_onnx.model"


@pytest.fixture
def model() -> onnx.ModelProto:
    """Return a call whose body is away: it runs where its operator was registered, and nowhere else."""
    made = call("QuantizeRowsAbove", {"x": np.ones((2, 8), np.float32)}, {}, ABOVE)
    del made.functions[:]
    return made


ABOVE = {"zero_point": 32, "least_peak": 1e-5, "step": 0.01, "block_size": 8}


def opened(model: onnx.ModelProto, entry: str = ""):
    options = Options(1)
    if entry:
        options.add_session_config_entry(ENTRY, entry)
    options.register_custom_ops_library(kernels.library())
    return open_session(model.SerializeToString(), options)


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\xca\x01\xff\xff\xff\xff\x0f", b"\xca\x01\x80"])
def test_all_are_there_where_no_file_says_what_it_calls(content, model, tmp_path):
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    for entry in ("", str(path), str(tmp_path)):
        assert opened(model, entry)


def test_a_file_has_what_its_functions_are_named(model, tmp_path):
    """The same call finds its operator or not, as another file says; functions of other domains do not count."""
    for name, domain, found in (
        ("QuantizeRowsAbove", DOMAIN, True),
        ("QuantizeRows", DOMAIN, False),
        ("QuantizeRows", "other", True),
    ):
        told = onnx.ModelProto()
        told.graph.doc_string = "long" * 100_000
        told.functions.add(name=name, domain=domain, doc_string="QuantizeRowsAbove")
        onnx.save(told, tmp_path / "told.onnx")
        if found:
            assert opened(model, str(tmp_path / "told.onnx"))
        else:
            with pytest.raises(Exception, match="QuantizeRowsAbove"):
                opened(model, str(tmp_path / "told.onnx"))


def test_what_a_session_saves_loads_with_the_library(tmp_path):
    """ONNX Runtime writes the calls that it did not inline; the file still says which."""
    feeds = {"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)}
    onnx.save(call("QuantizeRowsAbove", feeds, {}, ABOVE), tmp_path / "model.onnx")
    first = open_session(tmp_path / "model.onnx", Options(1, optimized=tmp_path / "saved.onnx"), kernels.library())
    second = open_session(tmp_path / "saved.onnx", Options(1), kernels.library())
    for a, b in zip(first.run(None, feeds), second.run(None, feeds), strict=True):
        assert np.array_equal(a, b)


def test_a_path_too_long_for_an_entry_registers_all(model, tmp_path):
    folder = tmp_path
    while len(str(folder)) < 2100:
        folder /= "x" * 200
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    assert open_session(folder / "model.onnx", Options(1), kernels.library())
