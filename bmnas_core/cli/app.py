"""The ``bmnas`` command: run notebooks, draw genotypes, compare searches, check data sets.

A user's mistake is one ``error: …`` line on stderr and exit code 2; a notebook that fails or data
that are not right give 1; Ctrl-C gives 130, another signal 128 plus its number.
"""

import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from ..config import __version__
from ..errors import BmnasError
from ..experiments import RunError
from . import lab, networks, notebooks, project, results, sweep, tasks
from .common import ParameterCommand, unwrapped


class _Commands(TyperGroup):
    """Turns errors that a user can correct into one line and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            code = 128 + getattr(error, "signal", signal.SIGINT)
            with suppress(OSError):  # the terminal may be gone
                _fail(str(error) or "interrupted", code)
            raise typer.Exit(code) from None
        except BrokenPipeError:
            raise
        except (BmnasError, OSError) as error:
            _fail(error, 1 if isinstance(error, RunError) else 2)


def _fail(message: object, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(str(message).split())}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=_Commands,
    help="Search, draw and run multimodal fusion networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(help=unwrapped(lab.notebooks))(lab.notebooks)
app.command(cls=lab.LabCommand, help=unwrapped(lab.lab))(lab.lab)
for command in (notebooks.run, notebooks.parameters, notebooks.draw):
    app.command(cls=ParameterCommand, help=unwrapped(command))(command)
for command in (sweep.sweep, results.collect, results.reproduce):
    app.command(help=unwrapped(command))(command)
for command in (
    tasks.tabulate,
    tasks.benchmark,
    tasks.baselines,
    tasks.cross_validate,
    tasks.backbone,
    networks.export,
):
    app.command(cls=ParameterCommand, help=unwrapped(command))(command)
app.add_typer(tasks.data, name="data", no_args_is_help=True)
app.add_typer(project.app, name="project", no_args_is_help=True)


def main() -> None:
    """Entry point of ``bmnas``."""
    for stream in (sys.stdout, sys.stderr):  # a Windows console may lack letters such as α
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    # jsonschema, which nbformat imports, builds a grammar of addresses with it: a second or more.
    # It does without, and no notebook has a field of that format.
    sys.modules.setdefault("rfc3987_syntax", None)
    app(prog_name="bmnas")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bmnas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
