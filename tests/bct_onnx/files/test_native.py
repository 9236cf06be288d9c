"""Native code of ONNX in a process of its own: what it makes comes back, what it dies of is a line."""

import onnx
import onnx.inliner
import pytest
from onnx import version_converter

from bct_onnx.files import native
from bct_onnx.files.native import NativeError, convert, inline
from bct_onnx.opsets import ConversionError, raise_opset
from tests.helpers import model

PLAIN = "g (float[m, 64] x) => (float[m, 64] y) { a = Relu(x) y = Softmax(a) }"
CALLS = """g (float[4] x) => (float[4] y) { y = local.f(x) }
    <opset_import: ["" : 17], domain: "local"> f (i) => (o) { h = Abs(i) o = Neg(h) }"""


def test_the_answer_is_that_of_the_library():
    plain, calls = model(PLAIN, 12, 7), model(CALLS, 17, 8)
    assert convert(plain, 21) == version_converter.convert_version(plain, 21)
    for convert_version in (False, True):
        assert inline(calls, convert_version) == onnx.inliner.inline_local_functions(calls, convert_version)


def test_a_refusal_is_its_first_line():
    broken = model(PLAIN, 12, 7)
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(NativeError) as error:
        convert(broken, 21)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_crash_is_a_line(monkeypatch, name):
    monkeypatch.setattr(native, "_SCRIPT", f"import os, signal; os.kill(os.getpid(), signal.{name})")
    with pytest.raises(NativeError, match=name):
        inline(model(CALLS, 17, 8))
    with pytest.raises(ConversionError, match=name):
        raise_opset(model(PLAIN, 12, 7), 21)
