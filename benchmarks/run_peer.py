"""Make a 4-bit file as one other tool does; run by its path in an environment that has the tool, without bct_onnx.

run_peer.py TOOL SETTING IN.onnx OUT.onnx; run_peer.py alone prints every tool and setting, one a line. Tools are
onnxruntime's own quantizer, Olive (pip install olive-ai requests) and NNCF (pip install nncf), all without data; HQQ
wants torch.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any


def onnxruntime(source: Path, target: Path, *, config: str, block: int, **options: Any) -> None:
    """Quantize products by a configuration, tables by rounding (nothing else takes them); integer arithmetic."""
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    model = onnx.load(source)
    for name, operators in ((config, ("MatMul",)), ("DefaultWeightOnlyQuantConfig", ("Gather",))):
        algorithm = getattr(nbits, name)(**options if operators == ("MatMul",) else {})
        for key, value in {"block_size": block, "bits": 4, "accuracy_level": 4}.items():
            setattr(algorithm, key, value)
        algorithm.op_types_to_quantize = set(operators)
        quantizer = nbits.MatMulNBitsQuantizer(model, block_size=block, accuracy_level=4, algo_config=algorithm)
        quantizer.process()
        model = quantizer.model.model
    onnx.save(model, target)


def olive(source: Path, target: Path, *, kind: str, block: int) -> None:
    """Run one of Olive's passes for 4-bit weights; they take tables, too."""
    from olive.hardware import DEFAULT_CPU_ACCELERATOR
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict

    module, name = kind.split(".")
    own = getattr(import_module(f"olive.passes.onnx.{module}"), name)
    step = create_pass_from_dict(
        own, {"block_size": block}, disable_search=True, accelerator_spec=DEFAULT_CPU_ACCELERATOR
    )
    with tempfile.TemporaryDirectory() as folder:
        made = step.run(ONNXModelHandler(str(source)), str(Path(folder, "model.onnx")))
        target.write_bytes(Path(made.model_path).read_bytes())


def nncf(source: Path, target: Path, *, mode: str, every: bool) -> None:
    """Compress products to 4 bits, at opset 21; tables and the last product to 8 bits, or `every` one to 4.

    Its blocks of a Conv or a Gemm, and what it writes with zero points below opset 21, do not run.
    """
    import nncf
    import onnx.version_converter

    modes = nncf.CompressWeightsMode
    model = nncf.compress_weights(
        onnx.version_converter.convert_version(onnx.load(source), 21),
        mode=getattr(modes, mode),
        group_size=32,
        all_layers=every,
        ignored_scope=nncf.IgnoredScope(types=["Conv", "Gemm"], validate=False),
    )
    onnx.save(model, target)


Step = Callable[[Path, Path], None]


def _blocks(step: Callable[..., None], **options: Any) -> dict[str, Step]:
    return {f"block {block}": partial(step, block=block, **options) for block in (32, 128)}


def _layers(mode: str) -> dict[str, Step]:
    return {name: partial(nncf, mode=mode, every=name != "defaults") for name in ("defaults", "all layers")}


TOOLS: dict[str, dict[str, Step]] = {
    "onnxruntime RTN": _blocks(onnxruntime, config="DefaultWeightOnlyQuantConfig", is_symmetric=True),
    "onnxruntime k-quant": _blocks(onnxruntime, config="KQuantWeightOnlyQuantConfig"),
    "onnxruntime HQQ": _blocks(onnxruntime, config="HQQWeightOnlyQuantConfig"),
    # Its HQQ wrote more bytes than the float file of ViT-Tiny has.
    "Olive RTN": _blocks(olive, kind="rtn_quantization.OnnxBlockWiseRtnQuantization"),
    "Olive k-quant": _blocks(olive, kind="kquant_quantization.OnnxKQuantQuantization"),
    "NNCF symmetric": _layers("INT4_SYM"),
    "NNCF asymmetric": _layers("INT4_ASYM"),
}


def main() -> None:
    """List tools and settings, or make one file."""
    if len(sys.argv) == 1:
        print("\n".join(f"{tool}\t{setting}" for tool, settings in TOOLS.items() for setting in settings))
        return
    tool, setting, source, target = sys.argv[1:]
    TOOLS[tool][setting](Path(source), Path(target))


if __name__ == "__main__":
    main()
