"""Exercises that check themselves: ``bm.check("03.2", answer)``."""

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..errors import BmnasError, in_line, near_miss, quoted
from ..runtime import seeded

#: Number of a notebook → module with its exercises, imported when one of them is first checked.
MODULES = {
    "00": "quickstart", "01": "backbones", "02": "primitive_operations",
    "03": "cells_and_hypernet", "04": "the_search", "05": "genotypes", "06": "evaluation",
    "07": "ablations", "08": "does_it_work", "09": "own_task", "10": "mmimdb", "11": "ntu",
    "12": "egogesture", "13": "sweeps",
}  # fmt: skip


class ExerciseError(BmnasError):
    """An exercise that does not exist."""


@dataclass(frozen=True)
class Exercise:
    """A question of a notebook.

    Attributes:
        name: number of the notebook and of the question, such as ``"03.2"``.
        examine: function of an answer; returns what is wrong with it, and None if it is right.
        hints: shown one after the other, each time that an answer is wrong. They do not give the
            answer away.
    """

    name: str
    examine: Callable[[object], str | None]
    hints: tuple[str, ...]


EXERCISES: dict[str, Exercise] = {}
#: How many wrong answers this process has seen, by exercise.
_WRONG: Counter[str] = Counter()


def exercise(name: str, *hints: str):
    """Decorator: make a function of an answer the check of the exercise called ``name``."""

    def decorate(examine: Callable[[object], str | None]):
        EXERCISES[name] = Exercise(name, examine, hints)
        return examine

    return decorate


@dataclass(frozen=True)
class Check:
    """What became of an answer. It shows itself in a notebook, and is true if the answer is right.

    Attributes:
        name: of the exercise.
        right: whether the answer is; None for ``...``, no answer yet.
        wrong: what is wrong with it, or an empty text.
        hint: towards the right one, or an empty text.
    """

    name: str
    right: bool | None
    wrong: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return bool(self.right)

    def __repr__(self) -> str:
        return " ".join(filter(None, (f"{self.name}: {self._head}.", self.wrong, self.hint)))

    @property
    def _head(self) -> str:
        if self.right is None:
            return "no answer yet"
        return "right" if self.right else "not yet"

    def _repr_html_(self) -> str:
        colour = {None: "#8A949E", True: "#009E73", False: "#D55E00"}[self.right]
        text = " ".join(filter(None, (self.wrong, self.hint)))
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 2px 10px">'
            f"<b>{self.name}: {self._head}.</b> {html.escape(text)}</div>"
        )


def check(name: str, answer: object = ...) -> Check:
    """Whether an answer to an exercise of a notebook is right.

    Args:
        name: of the exercise, such as ``"03.2"``.
        answer: a number, text, set, function, class, genotype or whatever the exercise asks for;
            ``...`` is no answer yet.

    Returns a :class:`Check`. After each wrong answer its hint says a little more. An answer that
    fails while it is tried, such as a function that raises, is wrong; only Ctrl-C stops the cell.
    Random numbers that are drawn later stay the same. Raises ExerciseError for an unknown name.
    """
    found = _find(name)
    if answer is ...:
        return Check(name, None)
    try:
        with seeded(0, "exercise", name):
            wrong = found.examine(answer)
    except Exception as error:
        wrong = f"It raised {type(error).__name__}: {in_line(error)}."
    if wrong is None:
        return Check(name, True)
    k = min(_WRONG[name], len(found.hints) - 1)
    _WRONG[name] += 1
    return Check(name, False, wrong, f"Hint {k + 1} of {len(found.hints)}: {found.hints[k]}")


def _find(name: object) -> Exercise:
    number = name.partition(".")[0] if isinstance(name, str) else None
    if number not in MODULES:
        raise ExerciseError("exercise", quoted(name), "such as '03.2', of notebooks 00 to 13")
    import_module(f"{__package__}.exercises.{MODULES[number]}")
    if name not in EXERCISES:
        known = sorted(other for other in EXERCISES if other.startswith(f"{number}."))
        found = f"{quoted(name)}{near_miss(name, known)}"
        raise ExerciseError("exercise", found, ", ".join(known))
    return EXERCISES[name]
