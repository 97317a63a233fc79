"""Rules: how the label of a written and a spoken digit follows from what is known of the two."""

from dataclasses import dataclass

from ..registry import Registry, takes
from .task import TaskError


@dataclass(frozen=True)
class DigitPair:
    """What is known of a written and a spoken digit, for a rule to use.

    Attributes:
        written, spoken: the digits, 0 to 9.
        voice: who speaks: a voice of espeak-ng, such as ``"en-us+f3"``, or a person's name.
        pitch, speed: espeak-ng's pitch, 0 to 99, and words a minute; None if a person speaks.
    """

    written: int
    spoken: int
    voice: str
    pitch: int | None = None
    speed: int | None = None


def _check(name: str, function: object) -> None:
    if not takes(function, 1):
        raise TaskError(f"rule {name!r}", repr(function), "a function of a DigitPair")


#: Functions from a :class:`DigitPair` to its label, by name. Filled by :func:`register_rule`.
RULES = Registry("rule", TaskError, check=_check)


def register_rule(name: str):
    """Decorator: make a function of a :class:`DigitPair` a rule, ``load_task("digits", rule=…)``.

    It returns the label, a whole number or a text, or None for a pair that the rule does not allow.
    The labels in order are the task's classes. Raises TaskError for a name that is taken or
    ill-formed, or anything but such a function.
    """
    return RULES.register(name)


@register_rule("same")
def same(pair: DigitPair) -> int | None:
    """Both show the same digit, which is the label."""
    return pair.written if pair.written == pair.spoken else None


@register_rule("sum")
def add(pair: DigitPair) -> int:
    """Written plus spoken digit: neither modality alone says much, and fusion decides."""
    return pair.written + pair.spoken


@register_rule("voice")
def add_or_subtract(pair: DigitPair) -> int:
    """A high voice says "add", a low one "subtract": where fusion looks decides."""
    return pair.written + pair.spoken if is_high(pair.voice) else pair.written - pair.spoken


def is_high(voice: str) -> bool:
    """Whether a voice of espeak-ng is of the higher kind (f1 to f5) or the lower (m1 to m7).

    Raises TaskError for anybody else's.
    """
    kind = voice.rpartition("+")[2][:1]
    if kind not in ("f", "m"):
        raise TaskError("voice", repr(voice), "one of espeak-ng's, ending in f1 to f5 or m1 to m7")
    return kind == "f"
