"""Builds the native kernels into wheels and editable installs where there is a C++ compiler."""

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelBuild(BuildHookInterface):  # type: ignore[misc]  # only builds have hatchling
    """Adds the library to the wheel, or nothing: without it files run the bodies of their functions."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library beside its sources; a compiler that fails leaves a wheel without it."""
        path = Path(self.root, "bct_onnx", "kernels", "build.py")
        spec = importlib.util.spec_from_file_location("build_kernels", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            built = module.build()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"native kernels were not built: {error}", file=sys.stderr)
            return
        if built and version != "editable":
            # Any Python 3 loads it: it knows ONNX Runtime alone.
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"], build_data["tag"] = False, f"py3-none-{platform}"
            build_data["force_include"][str(module.TARGET)] = f"bct_onnx/kernels/{module.TARGET.name}"
