"""The page of size against error: a figure and a table for each model, of points that were measured before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GOALS, PRESETS = "bct_onnx, goals", "bct_onnx, presets"


SAME = "same decisions"


@dataclass(frozen=True)
class Figure:
    """What is shown of a model.

    Attributes:
        title: the model and what it is measured on.
        columns: headings by metric; the first metric is the error.
        other: the metric that is drawn beside the error.
    """

    title: str
    columns: dict[str, str]
    other: str

    @property
    def error(self) -> str:
        """The metric that is an error, drawn logarithmically."""
        return next(iter(self.columns))

    @property
    def drawn(self) -> tuple[str, str]:
        """The two metrics that are drawn."""
        return self.error, self.other

    @property
    def alt(self) -> str:
        """The figure in words."""
        error, other = (self.columns[metric] for metric in self.drawn)
        return f"{error} and {other} over how many times smaller a file is"


FIGURES = {
    "vit_tiny": Figure(
        "ViT-Tiny, 500 pictures of ImageNet",
        {"error": "error of the logits", SAME: "same decisions (%)", "top-1": "points lost"},
        SAME,
    ),
    "minilm sts-b": Figure(
        "MiniLM, STS-B",
        {"distance": "distance to float's embeddings", "Spearman": "Spearman lost (points)"},
        "Spearman",
    ),
    "smollm2": Figure(
        "SmolLM2-135M, WikiText-2, 4,096 tokens",
        {"perplexity": "perplexity gained (%)", SAME: "same next tokens (%)"},
        SAME,
    ),
}


@dataclass(frozen=True)
class Point:
    """One file: who made it and how, its size, and what it loses.

    Attributes:
        seconds: of processor time, for making it.
        values: by metric: percent of same decisions, the distance or error, or how much the float model's score is lost
            (points for scores in percent, else percent of the float model's).
    """

    model: str
    tool: str
    setting: str
    bytes: int
    ratio: float
    seconds: float
    values: dict[str, float]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells points apart."""
        return self.model, self.tool, self.setting

    @property
    def ours(self) -> bool:
        """Whether it is this project's."""
        return self.tool in (GOALS, PRESETS)

    @property
    def shown(self) -> str:
        """The setting as Markdown."""
        return f"`{self.setting}`" if self.ours else self.setting


INTRODUCTION = """# Size against error, beside other tools' 4 bits

    make curves BCT_DATA=... BCT_MODELS=... PEERS=OTHER_ENVIRONMENT/bin/python

makes this page, its figures and [curves.json](curves.json), which has all digits. Sizes are those of whole files. All
are made without data and without labels; errors are those on real pictures and texts. Other tools cut products and,
where they can, tables into blocks of 4 bits; what they leave in float makes their files larger. Seconds are of
processor time, for making a file.
"""


def picture(model: str) -> str:
    """Return the name of the file of a model's figure."""
    return f"curve_{model.replace(' ', '_')}.png"


def page(points: Sequence[Point]) -> str:
    """Return the page, as Markdown."""
    return "\n".join([INTRODUCTION, *(line for model in FIGURES for line in _section(model, points))])


def _section(model: str, points: Sequence[Point]) -> Iterator[str]:
    own = sorted((point for point in points if point.model == model), key=lambda p: (not p.ours, p.tool, p.ratio))
    if not own:
        return
    figure = FIGURES[model]
    titles = list(figure.columns.values())
    yield f"## {figure.title}\n\n![{figure.alt}]({picture(model)})\n"
    yield f"| made by | with | MB | smaller | {' | '.join(titles)} | seconds |"
    yield "|---|---|" + "---|" * (3 + len(titles))
    before = ""
    for point in own:
        forms = {metric: ".3g" if metric == figure.error else ".2f" for metric in figure.columns}
        values = [f"{point.values[metric] + 0.0:{form}}" for metric, form in forms.items()]
        tool, before = "" if point.tool == before else point.tool, point.tool
        size = [f"{point.bytes / 1e6:.2f}", f"{point.ratio:.2f}x"]
        yield f"| {' | '.join([tool, point.shown, *size, *values, f'{point.seconds:.0f}'])} |"
    yield ""


def draw(model: str, points: Sequence[Point], path: Path) -> None:
    """Draw the figure of a model: two of its columns over how many times smaller a file is."""
    from matplotlib.figure import Figure as Canvas

    figure = FIGURES[model]
    canvas = Canvas(figsize=(11, 4.2), layout="constrained")
    canvas.suptitle(f"{figure.title}: whole files, no data")
    plots = canvas.subplots(1, 2)
    tools = list(dict.fromkeys(point.tool for point in sorted(points, key=lambda p: (not p.ours, p.tool))))
    for axes, metric in zip(plots, figure.drawn, strict=True):
        for number, tool in enumerate(tools):
            own = sorted((p for p in points if p.tool == tool), key=lambda p: p.ratio)
            style = {GOALS: "o-", PRESETS: "*"}.get(tool, "^sDvP<>X"[number % 8])
            size = 10 if tool == PRESETS else 6
            across, up = [p.ratio for p in own], [p.values[metric] for p in own]
            axes.plot(across, up, style, color=f"C{number % 10}", markersize=size, label=tool)
        scale = "log" if metric == figure.error else "linear"
        axes.set(xlabel="times smaller than the float file", ylabel=figure.columns[metric], yscale=scale)
        axes.grid(visible=True, which="both", alpha=0.25)
    plots[0].legend(fontsize=7)
    canvas.savefig(path, dpi=80)
