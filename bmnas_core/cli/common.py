"""What several commands share: options, ``-p NAME VALUE`` pairs, tables."""

from collections.abc import Callable, Iterable
from inspect import cleandoc
from typing import Annotated

from typer import Option
from typer.core import TyperCommand

from ..errors import printable
from ..experiments import ParameterError

Device = Annotated[str, Option(help="auto, cpu, cuda, mps, …")]


def unwrapped(command: Callable) -> str:
    """A command's docstring as its help: a line for each paragraph, which the terminal wraps.

    Paragraphs after ``\\b`` or with an indent stay as they are.
    """
    paragraphs = cleandoc(command.__doc__).split("\n\n")
    return "\n\n".join(p if p[0] in "\b " else p.replace("\n", " ") for p in paragraphs)


def out_option(help: str):
    """``-o FILE``, ``--out FILE``."""
    return Option("-o", "--out", metavar="FILE", help=help)


def repeated(name: str, help: str, metavar: str | None = None):
    """An option that may be given several times."""
    return Option(name, metavar=metavar, help=f"{help}; may be repeated.", show_default=False)


class ParameterCommand(TyperCommand):
    """Takes ``-p NAME VALUE`` as ``-p NAME=VALUE``: a repeated option of typer has one word."""

    def parse_args(self, ctx, args):
        words = list(args)
        for i in reversed(range(1, len(words) - 1)):
            if words[i - 1] == "-p" and "=" not in words[i]:
                words[i : i + 2] = [f"{words[i]}={words[i + 1]}"]
        return super().parse_args(ctx, words)


def pairs(words: list[str] | None) -> list[tuple[str, str]]:
    """``NAME=VALUE`` words as pairs. Raises :class:`ParameterError` for a word without a value."""
    for word in words or ():
        if "=" not in word:
            raise ParameterError(f"parameter {word}", "no value", "-p NAME VALUE")
    return [tuple(word.split("=", 1)) for word in words or ()]


def table(rows: Iterable[tuple], head: tuple[str, ...] = (), *, numbers: int = 0) -> str:
    """Rows as lines of plain text, however long; the last columns are ``numbers``."""
    from rich.console import Console
    from rich.table import Table

    rows = [tuple(map(printable, row)) for row in rows]
    columns = head or rows[0]
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(head))
    for i, name in enumerate(columns):
        drawn.add_column(name, justify="right" if i >= len(columns) - numbers else "left")
    for row in rows:
        drawn.add_row(*row)
    console = Console(width=10**6, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
