"""Kinds of answers: each function says what is wrong with one, and returns None if it is right."""

import math
from collections.abc import Callable, Collection, Iterable
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from ...errors import quoted


def number(answer: object, expected: float, tolerance: float = 0.0) -> str | None:
    """A number, of Python, NumPy or PyTorch, within ``tolerance`` of the one expected."""
    value = as_number(answer)
    if value is None:
        return f"A number is asked for, and this is {kind(answer)}."
    return None if abs(value - expected) <= tolerance else f"It is not {quoted(answer)}."


def as_number(answer: object) -> float | None:
    """A finite number, of Python, NumPy or PyTorch; None for anything else."""
    if isinstance(answer, (np.ndarray, np.generic, Tensor)) and np.size(answer) == 1:
        answer = answer.item()
    plain = isinstance(answer, Real) and not isinstance(answer, bool)
    return float(answer) if plain and math.isfinite(answer) else None


def word(answer: object, expected: str, options: Collection[str]) -> str | None:
    """One of several texts."""
    if answer not in options:
        return f"One of {', '.join(map(repr, options))} is asked for, not {quoted(answer)}."
    return None if answer == expected else f"It is not {quoted(answer)}."


def names(answer: object, expected: Collection[str], options: Collection[str]) -> str | None:
    """A set, list or tuple of texts, in any order."""
    if isinstance(answer, str) or not isinstance(answer, (set, frozenset, list, tuple)):
        return f"A set of names is asked for, and this is {kind(answer)}."
    if unknown := [one for one in answer if one not in options]:
        return f"{quoted(unknown[0])} is none of {', '.join(options)}."
    found = set(answer)
    if found == set(expected):
        return None
    return "One or more are missing." if found < set(expected) else "Not all of these belong there."


def called(answer: object) -> str | None:
    """Anything that can be called."""
    if callable(answer):
        return None
    return f"A function is asked for, and this is {kind(answer)}."


def function(
    answer: object, expected: Callable, cases: Iterable[tuple], tolerance: float = 1e-9
) -> str | None:
    """A function that gives the same numbers, texts or tensors as ``expected`` in all ``cases``."""
    if wrong := called(answer):
        return wrong
    for case in cases:
        found, wanted = answer(*case), expected(*case)
        if wrong := _differs(found, wanted, tolerance):
            shown = ", ".join("…" if isinstance(x, (Tensor, np.ndarray)) else repr(x) for x in case)
            return f"For ({shown}) {wrong}."
    return None


def _differs(found: object, wanted: object, tolerance: float) -> str | None:
    if isinstance(wanted, Tensor):
        return tensor(found, wanted, tolerance)
    if isinstance(wanted, Real):
        value = as_number(found)
        alike = value is not None and abs(value - wanted) <= tolerance * max(1, abs(wanted))
        return None if alike else f"it gives {quoted(found)}, which is not right"
    return None if found == wanted else f"it gives {quoted(found)}, which is not right"


def tensor(found: object, wanted: Tensor, tolerance: float = 1e-5) -> str | None:
    """A tensor of the same shape and values."""
    if not isinstance(found, Tensor):
        return f"it gives {kind(found)}, not a tensor"
    if found.shape != wanted.shape:
        return f"it gives a tensor of shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    gap = (found.detach().to(wanted) - wanted.detach()).abs().max()
    # A NaN is no smaller than the tolerance.
    return None if gap <= tolerance else f"its values are off by up to {float(gap):.2g}"


def instance(answer: object, wanted: type, article: str = "a") -> str | None:
    """An object of a class."""
    if isinstance(answer, wanted):
        return None
    return f"{article.capitalize()} {wanted.__name__} is asked for, and this is {kind(answer)}."


def kind(answer: object) -> str:
    """What an answer is, in words."""
    if answer is None:
        return "None"
    if isinstance(answer, type):
        return f"the class {answer.__name__}"
    name = type(answer).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def random_tensor(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape)
