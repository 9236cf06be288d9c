"""ONNX's own converter, inliner and checker in a process of their own: what crashes there is an error here.

All are native code that trusts the graph; a model that ONNX Runtime loads can still bring them down. They see a model
without its large weights, so that what goes back and forth is small; a call takes a third of a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import onnx

_SCRIPT = """
import sys
from onnx.onnx_cpp2py_export import checker, inliner, version_converter

def check(model, full):
    checker.check_model(model, full, False, False)
    return b""

call, kind = {
    "check": (check, bool),
    "convert": (version_converter.convert_version, int),
    "inline": (inliner.inline_local_functions, bool),
}[sys.argv[1]]
try:
    made = call(sys.stdin.buffer.read(), kind(int(sys.argv[2])))
except Exception as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    sys.stdout.buffer.write(lines[0].encode())
    sys.stdout.flush()
    sys.exit(1)
sys.stdout.buffer.write(made)
"""


class NativeError(Exception):
    """The converter, the inliner or the checker refused a model or died of it; the message is one line."""


def convert(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model as onnx.version_converter raises it; raises NativeError."""
    return _call("convert", model, opset)


def check(model: onnx.ModelProto) -> None:
    """Let onnx.checker see a model, its types and shapes inferred; raises NativeError with what it refuses."""
    _call("check", model, int(True))


def inline(model: onnx.ModelProto, convert_version: bool = False) -> onnx.ModelProto:
    """Return the model as onnx.inliner makes it, calls of functions replaced by their nodes; raises NativeError."""
    return _call("inline", model, int(convert_version))


def _call(what: str, model: onnx.ModelProto, argument: int) -> onnx.ModelProto:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, what, str(argument)],
        input=model.SerializeToString(),
        capture_output=True,
        # What this process imports from, that one does.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    if done.returncode < 0:
        raise NativeError(f"onnx dies of it ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        said = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
        raise NativeError(said[-1] if said else f"onnx ends with {done.returncode}")
    result: onnx.ModelProto = onnx.ModelProto.FromString(done.stdout)
    return result
