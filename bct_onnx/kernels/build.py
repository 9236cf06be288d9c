"""Builds the native kernels with the C++ compiler that is there: when the package is installed, or by hand.

    python -m bct_onnx.kernels

It imports nothing of the package: the build hook runs it by its path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
TARGET = FOLDER / "libbct_onnx_kernels.so"
# Exact sums and one rounding a factor: no multiplication and addition become one operation.
FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra")
# GCC warns of vectors in interfaces that have none, and of its own headers.
QUIET = ("-Wno-psabi", "-Wno-parentheses", "-Wno-ignored-attributes", "-Wno-maybe-uninitialized", "-Wno-uninitialized")


def compiler() -> str | None:
    """Return the C++ compiler: what CXX names, or g++; None where there is none, or it is none for this."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    return found if sys.platform == "linux" else None


def build(target: Path = TARGET) -> bool:
    """Write the library, whole or not at all, with what CXXFLAGS says (-O3); return False without a compiler.

    Raises subprocess.CalledProcessError where the compiler fails.
    """
    command = compiler()
    if command is None:
        return False
    flags = os.environ.get("CXXFLAGS", "-O3").split()
    sources = sorted((FOLDER / "src").glob("*.cpp"))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [Path(folder, f"{source.stem}.o") for source in sources]

        def compile_one(source: Path, to: Path) -> None:
            subprocess.run([command, *FLAGS, *QUIET, *flags, "-c", str(source), "-o", str(to)], check=True)

        list(pool.map(compile_one, sources, objects))
        made = Path(folder, target.name)
        subprocess.run([command, "-shared", *flags, *map(str, objects), "-o", str(made)], check=True)
        made.replace(target)
    return True
