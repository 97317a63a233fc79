"""Progress bars, shown only in a terminal or a notebook that somebody is looking at."""

import os
import sys
from collections.abc import Iterable

from tqdm.auto import tqdm

#: Environment variable: 1 if a notebook runs unattended, which its kernel cannot find out.
UNATTENDED = "BMNAS_UNATTENDED"


def progress_bar(
    iterable: Iterable, name: str, total: int | None = None, *, show: bool = True
) -> tqdm:
    """``iterable`` with a bar that disappears at its end: ``for state in progress_bar(search, …)``.

    ``total`` items, by default ``len(iterable)`` if it has one. ``show=False`` never shows the bar.
    """

    def to_its_end():
        yield from iterable
        bar.total = None  # full, even if it stops early

    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    bar = tqdm(to_its_end(), name, total, leave=False, disable=not (show and is_interactive()))
    return bar


def is_interactive() -> bool:
    """Whether what is printed here appears in a terminal or an attended notebook."""
    attended = os.environ.get(UNATTENDED) != "1"
    return attended and (sys.stderr.isatty() or notebook_shell() is not None)


def notebook_shell():
    """The shell of the notebook that this runs in, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None
