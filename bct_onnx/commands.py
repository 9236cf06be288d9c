"""All commands under one name: `bct-onnx IN OUT` compresses, `bct-onnx COMMAND ...` does another thing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

DEFAULT = "compress"
# Module, name in it, and what it does in a line: imported only when it is asked for.
COMMANDS = {
    DEFAULT: (
        "bct_onnx.cli",
        "command",
        "Compress a model, or every model of a folder or a checkpoint; may be left out.",
    ),
    "verify": (
        "bct_onnx.package.command",
        "verify",
        "Check a package: the hashes of its files, and that its models answer as before.",
    ),
    "many": ("bct_onnx.many", "main", "Compress a list of models, and resume where that stopped."),
    "evaluate": ("bct_onnx.evaluate.__main__", "main", "Score models side by side on labelled data."),
    "bench": ("bct_onnx.bench.__main__", "main", "Compare size, loading, memory and speed of models."),
}


class Commands(click.Group):
    """Commands by name; arguments that begin with none of them are those of `compress`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before arguments that name none."""
        return super().parse_args(ctx, args if args[:1] and args[0] in COMMANDS else [DEFAULT, *args])

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: Any = getattr(import_module(module), name)
        return command if isinstance(command, click.Command) else None


commands = Commands("bct-onnx")
EPILOG = "\b\nOther commands:\n" + "\n".join(
    f"  bct-onnx {name:<9} {what}" for name, (_, _, what) in COMMANDS.items() if name != DEFAULT
)
