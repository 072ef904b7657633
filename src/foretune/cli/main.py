"""The list of commands. Only the one that was asked for is imported, and ``--help`` loads no torch."""

from __future__ import annotations

import inspect
import io
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import typer

from foretune.errors import ForetuneError, Interrupted

COMMANDS = {
    "tune": "Recommend, train once, judge, report, save.",
    "recommend": "The plan alone; trains nothing.",
    "compare": "Several methods on the same rows and seeds, and what may be claimed.",
    "collect": "Many runs of many configurations, from which later ones are foretold.",
    "predict": "Label new rows with a finished run.",
    "export": "Hand a run over as PEFT, merged, ONNX or decision files.",
    "replay": "Race recommenders on recorded runs; trains nothing.",
    "report": "Write a run's report again as one self-contained HTML page.",
    "runs": "List, show, compare, import and export earlier runs.",
    "tasks": "The catalog of known data sets.",
    "doctor": "Say what this machine can do and what is missing.",
    "demo": "The whole product on real data, without network.",
}
"""Command -> its line in ``foretune --help``. The module ``foretune.cli.<command>`` holds ``app``, a Typer."""

HELP = """Know how to tune before you tune.

Begin with `foretune demo`, or with your own table of texts and labels: `foretune tune train.csv`.
"""

EXIT_CODES = (
    "Exit codes: 0 done, 1 unexpected, 2 usage, 3 data, 4 model, 5 memory, disk or time, 6 run folder or store, "
    "7 export, 8 diverged, 130 interrupted."
)

WrongWords: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for a command or an option that does not exist; newer versions carry a copy of click's own."""


def build(wanted: str | None) -> typer.Typer:
    """The application: ``wanted`` for real, the other commands by name and line only."""
    app = typer.Typer(
        name="foretune",
        help=HELP,
        epilog=EXIT_CODES,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if wanted else None,  # loading rich would double the time of `foretune --help`
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, line in COMMANDS.items():
        if name != wanted:
            app.command(name, help=line)(_unused)
            continue
        module: typer.Typer = import_module(f"foretune.cli.{name}").app
        if len(module.registered_commands) == 1 and not module.registered_groups:
            app.command(name)(module.registered_commands[0].callback)  # type: ignore[type-var]
        else:
            app.add_typer(module, name=name, help=line)

    @app.callback(invoke_without_command=True)
    def root(
        context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and stop.")
    ) -> None:
        if version:
            from foretune import __version__

            typer.echo(f"foretune {__version__}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit(2)

    return app


def _unused() -> None:
    """Stands for a command that was not asked for."""


def main() -> NoReturn:
    """Run the command line: errors that foretune raises on purpose become one sentence and an exit code."""
    # Threads that wait for work spin by default: on a busy machine a run then takes ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminated)
    wanted = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        app = build(wanted)
        code = app(rewritten(wanted, sys.argv[1:]), prog_name="foretune", standalone_mode=False)
    except Interrupted as stopped:
        _stop(str(stopped), stopped.exit_code)
    except ForetuneError as error:
        _stop(f"Error: {error}", error.exit_code)
    except WrongWords as error:
        _stop(_usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it any more: Python must not flush it at exit
        sys.exit(1)
    if code == 130:
        _stop("Interrupted. Nothing was lost: the same command starts again or goes on where it was.", 130)
    sys.exit(code if isinstance(code, int) else 0)


def rewritten(wanted: str | None, words: list[str]) -> list[str]:
    """The ``words`` of a command line, a tuner's own options among them written as ``--option``."""
    if wanted not in ("tune", "recommend"):
        return words
    from foretune.cli.flags import with_tuner_options
    from foretune.cli.tune import tune

    return with_tuner_options(words, inspect.signature(tune).parameters)


def _usage(error: Any) -> str:
    """One line; empty where Typer has printed the help already."""
    message = " ".join(str(error.format_message()).split())
    if not message:
        return ""
    path = error.ctx.command_path if error.ctx else "foretune"
    return f"Error: {message}{'' if message.endswith(('.', '?')) else '.'} See `{path} --help`."


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM outside the training loop, which has a handler of its own, ends as Ctrl-C does."""
    raise KeyboardInterrupt


def _stop(sentence: str, code: int) -> NoReturn:
    if sentence:
        print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
