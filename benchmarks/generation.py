"""Greedy generation in onnxruntime-genai with a compressed model in place of model.onnx: how long it goes on as before.

    pip install onnxruntime-genai
    python benchmarks/generation.py FOLDER [OTHER_MODEL.onnx ...]

FOLDER is what onnxruntime-genai's model builder writes (model.onnx, genai_config.json, tokenizer.json). Each other
model is put beside links to the rest of it, genai_config.json unchanged.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime_genai as genai
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from tokenizers import Tokenizer

PROMPTS = (
    "The history of the city of Rome begins",
    "Water boils at a lower temperature in the mountains because",
    "def fibonacci(n):",
    "The three largest planets of the solar system are",
)


def generate(folder: Path, prompts: Sequence[Sequence[int]], count: int) -> tuple[list[list[int]], float]:
    """Return the `count` token numbers that follow each prompt, fewer where the model ends, and tokens a second."""
    model = genai.Model(str(folder))
    start, made = time.perf_counter(), []
    for prompt in prompts:
        options = genai.GeneratorParams(model)
        options.set_search_options(max_length=len(prompt) + count, do_sample=False)
        generator = genai.Generator(model, options)
        generator.append_tokens(np.asarray(prompt, np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        made.append([int(number) for number in generator.get_sequence(0)[len(prompt) :]])
    return made, sum(map(len, made)) / (time.perf_counter() - start)


def put_in_place(folder: Path, model: Path, target: Path) -> None:
    """Make `target` a folder like `folder` with another model in place of model.onnx."""
    for path in folder.iterdir():
        if not path.name.startswith("model.onnx"):
            (target / path.name).symlink_to(path.resolve())
    (target / "model.onnx").symlink_to(model.resolve())
    tensors = onnx.load(model, load_external_data=False).graph.initializer
    for name in {ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}:
        (target / name).symlink_to((model.parent / name).resolve())


def same_tokens(tokens: Sequence[int], before: Sequence[int]) -> int:
    """Return how many tokens are the same before the first other one."""
    pairs = zip(tokens, before, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(tokens), len(before)))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("models", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--tokens", default=48, show_default=True, type=click.IntRange(min=1), help="After each prompt.")
def main(folder: Path, models: tuple[Path, ...], tokens: int) -> None:
    """Generate from the same prompts with each model and tell how many tokens are those of FOLDER's own."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    before, speed = generate(folder, prompts, tokens)
    print(f"{folder / 'model.onnx'}: {speed:.1f} tokens/s")
    for model in models:
        with tempfile.TemporaryDirectory() as place:
            put_in_place(folder, model, Path(place))
            made, speed = generate(Path(place), prompts, tokens)
        same = [same_tokens(a, b) for a, b in zip(made, before, strict=True)]
        print(f"{model}: {speed:.1f} tokens/s; first {same} of {[len(b) for b in before]} tokens as before")
        print(f"    {PROMPTS[0]}{tokenizer.decode(made[0])!r}")


if __name__ == "__main__":
    main()
