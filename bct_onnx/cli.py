"""The command line, `bct-onnx` or `python -m bct_onnx`: IN OUT compresses, COMMAND ... does another thing."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from typing import Any

import click
import onnxruntime
from click.shell_completion import CompletionItem, get_completion_class
from rich.console import Console

from .errors import BctError
from .progress import DEBUG
from .sessions import limit_memory

DEFAULT = "compress"
# Module, name in it, and what it does in a line: imported only when it is asked for.
COMMANDS = {
    DEFAULT: (
        "bct_onnx.command",
        "command",
        "Compress a model, or every model of a folder or a checkpoint; may be left out.",
    ),
    "export": ("bct_onnx.package.command", "export", "Export a checkpoint to float ONNX files."),
    "verify": (
        "bct_onnx.package.command",
        "verify",
        "Check a package: the hashes of its files, and that its models answer as before.",
    ),
    "report": ("bct_onnx.page.command", "report", "Make a page to look at of what --json wrote, or of a package."),
    "many": ("bct_onnx.many.__main__", "main", "Compress a list of models, and resume where that stopped."),
    "evaluate": ("bct_onnx.evaluate.__main__", "main", "Score models side by side on labelled data."),
    "bench": ("bct_onnx.bench.__main__", "main", "Compare size, loading, memory and speed of models."),
    "completion": ("bct_onnx.cli", "completion", "Print what completes words in a shell."),
}
PROGRAM = "bct-onnx"
INTERRUPTED, TERMINATED = 130, 143
# What ONNX Runtime says goes into the one line, not beside it.
FATAL = 4
# What the shell sets to ask for completions, by click's rule.
COMPLETE_VARIABLE = "_BCT_ONNX_COMPLETE"


class Commands(click.Group):
    """Commands by name; arguments that begin with none of them are those of `compress`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before arguments that name none."""
        named = bool(args) and args[0] in COMMANDS
        completing = ctx.resilient_parsing and not args
        return super().parse_args(ctx, args if named or completing else [DEFAULT, *args])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a first word: a command's name, or what the default command has there."""
        default = self.get_command(ctx, DEFAULT)
        assert default is not None
        its = default.make_context(DEFAULT, [], parent=ctx, resilient_parsing=True)
        files = [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]
        return [*super().shell_complete(ctx, incomplete), *default.shell_complete(its, incomplete), *files]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: Any = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        if cmd_name == DEFAULT:
            from .parameters import OPERATORS

            command.epilog = f"{OPERATORS}\n\n{EPILOG}"
        return command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands and options: eval "$(bct-onnx completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(commands, {}, PROGRAM, COMPLETE_VARIABLE).source())


commands = Commands(PROGRAM)
EPILOG = "\b\nOther commands:\n" + "\n".join(
    f"  bct-onnx {name:<10} {what}" for name, (_, _, what) in COMMANDS.items() if name != DEFAULT
)


def main() -> None:
    """Run the command and end the process with its exit code."""
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, _terminate)
    limit_memory()
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        commands.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from None
    except BctError as error:
        _print_error(console, str(error))
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        _print_error(console, "interrupted; nothing was written")
        raise SystemExit(INTERRUPTED) from None
    except MemoryError as error:
        _print_error(console, f"more memory is needed than there is: {error}")
        raise SystemExit(2) from None
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _print_error(
            console,
            f"a defect of bct_onnx: {type(error).__name__}: {error} (set {DEBUG}=1 for the traceback)",
        )
        raise SystemExit(2) from None


def _terminate(*_: object) -> None:
    """End the process in the same way as an interrupt does: what was begun is removed."""
    raise SystemExit(TERMINATED)


def _print_error(console: Console, message: str) -> None:
    console.print(f"error: {' '.join(message.split())}", style="red", highlight=False, markup=False, soft_wrap=True)
