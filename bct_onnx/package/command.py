"""The command line of packages: `bct-onnx verify FOLDER`, `bct-onnx export CHECKPOINT FOLDER`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from bct_onnx import files
from bct_onnx.progress import shown

from .check import verify_folder
from .make import export_folder


class PresetFor(click.ParamType[tuple[str, str]]):
    """PATTERN=PRESET, as a pair."""

    name = "pattern=preset"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the pair; the preset's name is checked with the plan."""
        if isinstance(value, tuple):
            return value
        pattern, sign, preset = value.rpartition("=")
        if not sign or not pattern:
            self.fail(f"{value!r} is not PATTERN=PRESET, as in 'decoder*=small'", param, ctx)
        return pattern, preset


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def verify(folder: Path, json_path: Path | None, quiet: bool) -> None:
    """Check a package: hashes of its files; every model must load, run, and answer as where it was packaged.

    Exit code 0: the package is as it was made and runs. 1: it is not. 2: FOLDER is no package.
    """
    with shown(quiet) as progress:
        found = verify_folder(folder, progress=progress)
    if json_path is not None:
        files.write_json(json_path, asdict(found))
    if not quiet:
        show = Console().print
        show(f"{found.files} files have the hashes of the manifest", highlight=False)
        for name, latency in found.models.items():
            time = f", {latency.min_ms:.1f} ms" if latency else ""
            answers = " and answers as where it was packaged" if name in found.compared else ""
            show(f"{name} runs{answers}{time}", highlight=False, markup=False)
        for name in found.strange:
            show(f"note: {name} is not in the manifest", style="yellow", highlight=False, markup=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--task", help="What the model is for, in optimum's words; else config.json says it.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def export(checkpoint: Path, folder: Path, task: str | None, quiet: bool) -> None:
    """Export a checkpoint of transformers, a folder or a name of the hub, to float ONNX files in FOLDER.

    Compressing a checkpoint begins with it; alone, it shows what is compressed. Exit code 0: done. 2: a bad request or
    a bad input.
    """
    with shown(quiet) as progress:
        done = export_folder(checkpoint, folder, task=task, progress=progress)
    if not quiet:
        Console().print(f"{folder}: exported for {done}", highlight=False, markup=False, soft_wrap=True)
