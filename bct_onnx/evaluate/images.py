"""Classification of pictures: a folder of labelled files, or an .npz file of arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bct_onnx.errors import BctError
from bct_onnx.extras import extra
from bct_onnx.fidelity import class_errors
from bct_onnx.samples.processors import load_processor

from .compare import Outcome, compare
from .folders import bytes_on_disk, check_models, find_beside
from .metrics import ERROR, Array, top
from .model import Input, Model
from .records import DEFAULTS, Evaluation, Settings

_TOPS = (top(1), top(5))
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class Preprocess:
    """A pixel of 0 to 255 is fed as (pixel / 255 - mean) / std; pictures are cut to size x size."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size: int | None = None


IMAGENET = Preprocess()
PROCESSOR = "preprocessor_config.json"

# What makes the input of a model, float32 [n, 3, h, w] or [n, h, w, 3], of pictures with the given numbers.
Feeder = Callable[["Pictures", Array, Input], Array]


@dataclass(frozen=True)
class Pictures:
    """n labelled pictures: labels [n], and opener(i), the i-th as a PIL image in RGB."""

    labels: Array
    opener: Callable[[int], Any]

    def without(self, left_out: Array) -> "Pictures":
        """Return all pictures but those with the given numbers."""
        kept = np.setdiff1d(np.arange(len(self.labels)), left_out)
        return Pictures(self.labels[kept], lambda index: self.opener(int(kept[index])))


def read_pictures(data: str | Path, samples: int | None = None) -> Pictures:
    """Return the first `samples` pictures of a folder or an .npz file; raises BctError.

    A folder labels a picture by its stem (0017.jpg) or, failing that, by its sub-folder (17/cat.jpg).
    An .npz file holds images uint8 [n, h, w, 3] and labels [n].
    """
    data = Path(data)
    if data.is_dir():
        return _read_folder(data, samples)
    if data.suffix == ".npz" and data.is_file():
        return _read_arrays(data, samples)
    raise BctError(f"{data}: neither a folder of pictures nor an .npz file")


def _read_folder(folder: Path, samples: int | None) -> Pictures:
    image = extra("PIL.Image")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES)[:samples]
    if not files:
        raise BctError(f"{folder}: no pictures in it")
    names = [f.stem if f.parent == folder else f.parent.name for f in files]
    wrong = next((f for f, name in zip(files, names, strict=True) if not name.isdecimal()), None)
    if wrong is not None:
        raise BctError(f"{wrong}: name the file, or the sub-folder it is in, by its class number")

    def opener(index: int) -> Any:
        try:
            return image.open(files[index]).convert("RGB")
        except (OSError, SyntaxError) as error:
            raise BctError(f"{files[index]}: not a picture: {error}") from error

    return Pictures(np.array(names).astype(np.int64), opener)


def _read_arrays(file: Path, samples: int | None) -> Pictures:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"][:samples], arrays["labels"][:samples]
    except (KeyError, ValueError, OSError) as error:
        raise BctError(f"{file}: not an .npz file with images and labels: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or labels.shape != images.shape[:1]:
        raise BctError(
            f"{file}: images {images.dtype} {list(images.shape)}, labels {list(labels.shape)}; "
            "wanted are uint8 [n, h, w, 3] and [n]"
        )
    if not len(images):
        raise BctError(f"{file}: no pictures in it")
    image = extra("PIL.Image")
    return Pictures(labels.astype(np.int64), lambda index: image.fromarray(images[index]))


def pixels(pictures: Pictures, chosen: Array, node: Input, preprocess: Preprocess) -> Array:
    """Return float32 [len(chosen), 3, h, w], or [.., h, w, 3] where the input has its channels last."""
    last = node.size(1) != 3 and node.size(3) == 3
    height, width = (node.size(axis) or preprocess.size for axis in ((1, 2) if last else (2, 3)))
    images = [pictures.opener(index) for index in chosen]
    if height and width:
        fit = extra("PIL.ImageOps").fit
        method = extra("PIL.Image").Resampling.BICUBIC
        images = [i if i.size == (width, height) else fit(i, (width, height), method) for i in images]
    if len({image.size for image in images}) > 1:
        raise BctError(f"pictures differ in size and input {node.name} takes any: use --size")
    raw = np.stack([np.asarray(image) for image in images])
    mean, std = np.array(preprocess.mean, np.float32), np.array(preprocess.std, np.float32)
    scaled = (raw.astype(np.float32) / 255 - mean) / std
    return scaled if last else np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def ranks(logits: Array, labels: Array) -> Array:
    """Return the place [n] of labels [n] among logits [n, classes], best 0; of equals the first is better."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    return np.asarray(np.count_nonzero((logits > own) | ((logits == own) & before), axis=1))


def feeder(path: Path, reference: Path, preprocess: Preprocess | None) -> Feeder:
    """Return what feeds pictures as asked, else as the processor beside the model or the reference, else ImageNet's.

    Raises BctError for a processor that cannot be loaded.
    """
    config = None if preprocess else find_beside(PROCESSOR, path, reference)
    if config is None:
        return lambda pictures, chosen, node: pixels(pictures, chosen, node, preprocess or IMAGENET)
    processor = load_processor("AutoImageProcessor", config.parent)

    def feed(pictures: Pictures, chosen: Array, _: Input) -> Array:
        images = [pictures.opener(index) for index in chosen]
        return np.asarray(processor(images=images, return_tensors="np")["pixel_values"])

    return feed


def logits(
    path: Path, pictures: Pictures, preprocess: Preprocess | Feeder = IMAGENET, settings: Settings = DEFAULTS
) -> Array:
    """Return what a model answers to pictures, [n, classes]; raises BctError."""
    feed = feeder(path, path, preprocess) if isinstance(preprocess, Preprocess) else preprocess
    model = Model(path, settings.threads)
    node = model.inputs[0]
    if len(model.inputs) != 1 or len(node.shape) != 4:
        shapes = ", ".join(f"{i.name} {list(i.shape)}" for i in model.inputs)
        raise BctError(f"{path}: wanted is one input of pictures [n, 3, h, w]; it has {shapes}")
    count = len(pictures.labels)
    answers = []
    for start in range(0, count, settings.batch):
        chosen = np.arange(start, min(start + settings.batch, count))
        answers.append(model.answer({"main": feed(pictures, chosen, node)}))
        shape, label = answers[-1].shape, pictures.labels[chosen].max()
        if len(shape) != 2 or shape[1] <= label:
            raise BctError(f"{path}: output {model.output} is {list(shape)}, but a label is {label}")
    return np.concatenate(answers)


def _outcome(path: Path, found: Array, exact: Array, labels: Array) -> Outcome:
    places = ranks(found, labels)
    answers = {metric.name: places for metric in _TOPS} | {ERROR.name: class_errors(exact, found)}
    return Outcome(path, bytes_on_disk(path), answers, found.argmax(axis=1))


def evaluate_images(
    data: str | Path,
    models: Sequence[str | Path],
    *,
    preprocess: Preprocess | None = None,
    samples: int | None = None,
    left_out: Sequence[int] = (),
    settings: Settings = DEFAULTS,
) -> Evaluation:
    """Return top-1 and top-5 of models, files or folders, on a folder or an .npz file of labelled pictures.

    The first model is the reference. `error` is how far its logits are, relative to how much they spread over classes
    or, where there are few, over pictures: the figure that verification bounds, on real pictures. Pictures are fed as
    `preprocess` says; without it as the processor of transformers beside the model, or the reference, does; without
    that by the mean and deviation of ImageNet. `samples` takes the first pictures only, `left_out` are the numbers of
    pictures that are not for this: feeds, say. Raises BctError for what cannot be read or run.
    """
    paths = check_models(models)
    pictures = read_pictures(data, samples).without(np.array(left_out, np.int64))
    outcomes, exact = [], None
    for path in paths:
        found = logits(path, pictures, feeder(path, paths[0], preprocess), settings)
        exact = found if exact is None else exact
        if found.shape != exact.shape:
            raise BctError(f"{path}: knows {found.shape[1]} classes, the first model {exact.shape[1]}")
        outcomes.append(_outcome(path, found, exact, pictures.labels))
    return compare("images", data, outcomes, (*_TOPS, ERROR), settings, labels=pictures.labels)
