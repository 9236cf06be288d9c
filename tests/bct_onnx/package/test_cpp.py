"""The program in docs/cpp.md, compiled and run: the embedding that ONNX Runtime gives in Python.

BCT_ONNXRUNTIME_HEADERS names a folder with onnxruntime_cxx_api.h; the library is that of the Python package.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bct_onnx import compress
from tests.helpers import run

ROOT = Path(__file__).parents[3]
# Its output is [batch, tokens, width]; it has no token types.
MODEL = ROOT / "models" / "fixtures" / "distilbert_optimum.onnx"
IDS = [3, 14, 15, 92, 65]


@pytest.fixture
def program(tmp_path) -> Path:
    headers, compiler = os.environ.get("BCT_ONNXRUNTIME_HEADERS"), shutil.which("g++")
    if headers is None or compiler is None:
        pytest.skip("no g++, or no headers of ONNX Runtime (set BCT_ONNXRUNTIME_HEADERS)")
    text = (ROOT / "docs" / "cpp.md").read_text(encoding="utf-8")
    listing = text.split("`embed.cpp`:\n")[1].split("\n    g++")[0]
    source = tmp_path / "embed.cpp"
    source.write_text("\n".join(line.removeprefix("    ") for line in listing.splitlines()), encoding="utf-8")
    library = next(Path(ort.__file__).parent.glob("capi/libonnxruntime.so.*"))
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{headers}", str(source), f"-L{tmp_path}"]
    subprocess.run([*command, "-lonnxruntime", f"-Wl,-rpath,{tmp_path}", "-o", str(tmp_path / "embed")], check=True)
    return tmp_path / "embed"


@pytest.mark.parametrize("preset", ["fast", "small"])
def test_the_program_of_the_page(program, tmp_path, preset):
    compress(MODEL, tmp_path / "model.onnx", preset=preset)
    ids = np.array([IDS])
    hidden = run(tmp_path / "model.onnx", input_ids=ids, attention_mask=np.ones_like(ids))[0][0].mean(axis=0)
    arguments = [program, tmp_path / "model.onnx", *map(str, IDS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    found = np.array([float(line) for line in done.stdout.split()])
    assert found == pytest.approx(hidden / np.linalg.norm(hidden), abs=1e-5)
