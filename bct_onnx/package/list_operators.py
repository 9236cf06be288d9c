"""Print what operators models need as JSON; run in a process of its own: ONNX Runtime's tool logs."""

import json
import sys
import tempfile
from pathlib import Path

from onnxruntime.tools.ort_format_model import create_config_from_models
from onnxruntime.tools.reduced_build_config_parser import parse_config

from bct_onnx.sessions import Options, open_session

# A model needs its operators as they stand in the file, to fold constants with, and as they are after fusion.
LEVELS = ("none", "extended")


def to_ort(model: Path, level: str, target: Path) -> Path:
    """Write a model in ONNX Runtime's own format, which the tool reads."""
    entries = {"session.save_model_format": "ORT"}
    open_session(model, Options(optimize=level, optimized=target, entries=entries))
    return target


def main() -> None:
    """Print the configuration's lines, and the operators by domain and version of the operator set."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        made = [
            to_ort(Path(model), level, Path(folder) / f"{number}_{level}.ort")
            for number, model in enumerate(sys.argv[2:])
            for level in LEVELS
        ]
        config = Path(folder) / "config"
        try:
            create_config_from_models(made, config, enable_type_reduction=True)
        except KeyError:  # the tool does not know int4; without types, all are built in
            create_config_from_models(made, config, enable_type_reduction=False)
        lines = [line for line in config.read_text("utf-8").splitlines() if not line.startswith("#")]
        operators, _ = parse_config(str(config), enable_type_reduction=False)
    by_domain = {
        domain: {str(version): sorted(names) for version, names in sorted(versions.items())}
        for domain, versions in sorted(operators.items())
    }
    print(json.dumps({"lines": lines, "operators": by_domain}))  # noqa: T201


if __name__ == "__main__":
    main()
