"""Progress bars where somebody is watching: a terminal or a notebook, not a log or a lone run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from tqdm.auto import tqdm

#: Set to 1 where a notebook runs with nobody in front of it; its kernel cannot tell by itself.
UNATTENDED = "BMNAS_UNATTENDED"


class _Bar(tqdm):
    """A bar that is full when its iterable has ended, be it early, as a search may."""

    def __init__(self, iterable: Iterable, *args, **options):
        super().__init__(self._to_its_end(iterable), *args, **options)

    def _to_its_end(self, iterable: Iterable):
        yield from iterable
        self.total = None


def progress_bar(
    iterable: Iterable, name: str, total: int | None = None, *, show: bool = True
) -> tqdm:
    """``iterable`` with a bar that goes away when done: ``for state in progress_bar(search, …)``.

    Args:
        total: how many items; ``len(iterable)`` where None, if it has one.
        show: False for no bar, whoever watches.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    return _Bar(iterable, name, total, leave=False, disable=not (show and is_interactive()))


def is_interactive() -> bool:
    """Whether a terminal or a notebook shows what is printed here, to a person."""
    if os.environ.get(UNATTENDED) == "1":
        return False
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return sys.stderr.isatty() or hasattr(shell, "kernel")
