"""The models that other tools make of a float model, and ours: one row each, made in a process of its own."""

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import TensorProto

from bct_onnx import files
from bct_onnx.api import compress
from bct_onnx.bench import ctranslate2_peer, openvino_peer
from bct_onnx.bench.decoder import DecoderFiles
from bct_onnx.bench.records import Candidate, Kind, Runtime, Skipped
from bct_onnx.bench.workloads import Signature
from bct_onnx.errors import BctError, first_line
from bct_onnx.sessions import Cost, Options, open_session, peak_bytes

Step = Callable[[Path, Path], None]
"""Makes the model at the second path of the one at the first; raises when it cannot."""

EXTERNAL_FROM = 1_500_000_000  # bytes; protobuf ends at 2 GB and tools write weights unpacked in between


@dataclass(frozen=True)
class Recipe:
    """How one candidate is made: by `step`, of the first of `bases` that exists ("float" always does).

    `needs` are the packages without which it cannot be made; `runtime` is what runs it.
    """

    name: str
    step: Step
    kind: Kind = "peer"
    bases: tuple[str, ...] = ("float",)
    needs: tuple[str, ...] = ()
    runtime: Runtime = "onnxruntime"

    def missing(self) -> str | None:
        """Return a line that says which packages are not installed, or None."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else None


def optimize(source: Path, target: Path) -> None:
    """Fuse with the optimizer of onnxruntime.transformers, as the first model type whose result loads."""
    from onnxruntime.transformers.optimizer import optimize_model

    signature = Signature.read(source)
    guess = "gpt2" if signature.has_cache else "vit" if signature.has_pictures else "bert"
    failures = []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        basic = Path(folder, "basic.onnx")
        _optimize_basic(source, basic)
        for model_type in dict.fromkeys((guess, "bert")):
            try:
                model = optimize_model(str(basic), model_type=model_type, opt_level=0)
                model.save_model_to_file(str(target), use_external_data_format=_is_large(source))
                open_session(target, Options(1))
            except Exception as error:
                failures.append(first_line(error))
            else:
                return
    raise BctError(f"no model type fits: {failures[0]}")


def _optimize_basic(source: Path, target: Path) -> None:
    """Do what `optimize_model(opt_level=1)` does first, which asks for torch only to read its version."""
    external = {"session.optimized_model_external_initializers_file_name": f"{target.name}.data"}
    entries = external if _is_large(source) else {}
    open_session(source, Options(optimize="basic", optimized=target, entries=entries))


def quantize_dynamic(source: Path, target: Path) -> None:
    """Quantize to 8 bits per channel, activations dynamic per tensor."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    quantize(
        source,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=_is_large(source),
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


def quantize_nbits(source: Path, target: Path, *, block: int) -> None:
    """Quantize the multiplications to 4 bits, symmetric, integer arithmetic (accuracy_level 4)."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(str(source), 4, block, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), _is_large(source))


def quantize_k(source: Path, target: Path) -> None:
    """Quantize the multiplications to 4 bits in blocks of 32, scales and zero points by search (k-quant)."""
    from onnxruntime.quantization import matmul_nbits_quantizer as quantizers

    algorithm = quantizers.KQuantWeightOnlyQuantConfig()
    # Given a path, it writes a model that names the data of the one it read.
    quantizer = quantizers.MatMulNBitsQuantizer(onnx.load(source), 4, 32, accuracy_level=4, algo_config=algorithm)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), _is_large(source))


def every_model(source: Path, target: Path, *, step: Step) -> None:
    """Make a folder like the decoder's folder `source` with `step` done to each of its models."""
    models = DecoderFiles.find(source).all()
    target.mkdir()
    for path in source.iterdir():
        if path.is_file() and ".onnx" not in path.name:
            (target / path.name).symlink_to(path.resolve())
    for path in models:
        step(path, target / path.name)


def compress_preset(source: Path, target: Path, *, preset: str) -> None:
    """Compress with this project."""
    compress(source, target, preset=preset, verify=False)


OPTIMIZED = "optimizer"
PEERS = (
    Recipe(OPTIMIZED, optimize),
    Recipe("quantize_dynamic", quantize_dynamic),
    Recipe("optimizer, quantize_dynamic", quantize_dynamic, bases=(OPTIMIZED,)),
    # Fused first where that works: MatMulNBits is faster inside fused layers.
    Recipe("MatMulNBits 4 bits block 32", partial(quantize_nbits, block=32), bases=(OPTIMIZED, "float")),
    Recipe("MatMulNBits 4 bits block 128", partial(quantize_nbits, block=128), bases=(OPTIMIZED, "float")),
)
OPENVINO = ("openvino",)
NNCF = ("openvino", "nncf")
# Models of other runtimes, for a model that is not generated with.
OTHER_RUNTIMES = (
    Recipe("OpenVINO", openvino_peer.convert, needs=OPENVINO, runtime="openvino"),
    Recipe("OpenVINO, NNCF int8", openvino_peer.quantize_static, needs=NNCF, runtime="openvino"),
    Recipe(
        "OpenVINO, NNCF 4-bit weights",
        partial(openvino_peer.compress_weights, bits=4),
        needs=NNCF,
        runtime="openvino",
    ),
)
CTRANSLATE2 = ("ctranslate2", "transformers", "torch")
FROM_CHECKPOINTS = tuple(
    Recipe(
        f"CTranslate2 {kind}",
        partial(ctranslate2_peer.convert, kind=kind),
        needs=CTRANSLATE2,
        runtime="ctranslate2",
    )
    for kind in ("float32", "int8")
)
ENCODER_PEERS = (*PEERS, *OTHER_RUNTIMES, *FROM_CHECKPOINTS)
# What other tools make of a decoder; the optimizer's fusions know no caches of most models.
DECODER_PEERS = (
    Recipe("quantize_dynamic", quantize_dynamic),
    Recipe("MatMulNBits 4 bits block 32", partial(quantize_nbits, block=32)),
    Recipe("MatMulNBits 4 bits block 128", partial(quantize_nbits, block=128)),
    Recipe("MatMulNBits 4 bits k-quant", quantize_k),
    *(recipe for recipe in OTHER_RUNTIMES if recipe.step is not openvino_peer.quantize_static),
    Recipe(
        "OpenVINO, NNCF 8-bit weights",
        partial(openvino_peer.compress_weights, bits=8),
        needs=NNCF,
        runtime="openvino",
    ),
)


def ours(presets: str) -> tuple[Recipe, ...]:
    """Return one recipe per preset of a comma-separated list."""
    names = [preset.strip() for preset in presets.split(",") if preset.strip()]
    return tuple(Recipe(f"bct_onnx {name}", partial(compress_preset, preset=name), "ours") for name in names)


def make_all(
    source: Path, recipes: Sequence[Recipe], folder: Path, status: Callable[[str], None]
) -> Iterator[Candidate | Skipped]:
    """Make every recipe's model in `folder`, or tell why not, one at a time; `status` is told what is under way."""
    made = {"float": source}
    for recipe in recipes:
        base = next((base for base in recipe.bases if base in made), None)
        if base is None:
            yield Skipped(recipe.name, f"{recipe.bases[0]} was skipped")
            continue
        if missing := recipe.missing():
            yield Skipped(recipe.name, missing)
            continue
        status(f"make {recipe.name}")
        target, step = _target(folder, recipe, source), recipe.step
        result = in_fresh_process(partial(every_model, step=step) if source.is_dir() else step, made[base], target)
        if isinstance(result, str):
            yield Skipped(recipe.name, result)
        else:
            made[recipe.name] = target
            how = f"of the {base} model, by {_title(step)}"
            yield Candidate(recipe.name, target, recipe.kind, how, result, runtime=recipe.runtime)


def _target(folder: Path, recipe: Recipe, source: Path) -> Path:
    """Return where a recipe's model goes: a file named as its runtime expects it, or a folder."""
    name = "".join(c if c.isalnum() else "_" for c in recipe.name)
    suffix = {"openvino": ".xml", "ctranslate2": ""}.get(recipe.runtime, ".onnx")
    return folder / (name if source.is_dir() else name + suffix)


def in_fresh_process(step: Step, source: Path, target: Path) -> Cost | str:
    """Run a step in a process of its own and return its cost, or one line that says how it failed."""
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, spawn) as pool:
            return pool.submit(_timed, step, source, target).result()
    except Exception as error:
        return first_line(error)


def _timed(step: Step, source: Path, target: Path) -> Cost:
    logging.disable()
    warnings.simplefilter("ignore")
    ort.set_default_logger_severity(3)
    with Path(os.devnull).open("w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink):
        start = time.perf_counter()
        step(source, target)
        return Cost(time.perf_counter() - start, peak_bytes())


def _is_large(source: Path) -> bool:
    return files.bytes_on_disk(source) > EXTERNAL_FROM


def _title(step: Step) -> str:
    function = step.func if isinstance(step, partial) else step
    options = step.keywords if isinstance(step, partial) else {}
    return f"{function.__name__}({', '.join(f'{k}={v}' for k, v in options.items())})"
