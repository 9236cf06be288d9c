"""python -m bct_onnx.kernels: build the native kernels beside their sources."""

import sys

from bct_onnx.kernels.build import build

sys.exit(0 if build() else "no C++ compiler found: install g++, or name one in CXX")
