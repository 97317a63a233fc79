"""The root of every error that a user can cause, and how errors quote what they found."""

import difflib
import errno
import os
from collections.abc import Iterable

#: Most characters of what an error says that it found.
LONGEST = 400


class BmnasError(ValueError):
    """Something that a user gave does not fit: the place, what was found, and what is allowed.

    With ``place`` alone, that is the whole message. It is one line, whatever a file holds: control
    characters are escaped.
    """

    def __init__(self, place: object, found: object = None, allowed: object = None):
        if allowed is not None:
            found = shortened(str(found), LONGEST)
            place = f"{place}: found {found}; allowed: {allowed}"
        super().__init__(printable(place))


class TaskError(BmnasError):
    """A task that does not exist or does not hold together."""


class DataError(BmnasError):
    """Data files that are missing or damaged."""


class DataWarning(UserWarning):
    """Data that can be used but have a flaw, such as samples left out for unreadable files.

    Attributes:
        reasons: one line for each of what is left out, of which the text names the first ones.
    """

    def __init__(self, text: str, reasons: Iterable[str] = ()):
        super().__init__(printable(text))
        self.reasons = tuple(reasons)


class DataNotice(DataWarning):
    """What was decided about how data are read; nothing is wrong with them."""


class SourceError(BmnasError):
    """A network that cannot be written as a module of its own."""


class FileError(BmnasError, OSError):
    """A file that cannot be written."""

    def __new__(cls, *parts):  # as dask calls it; of two built-in bases the larger one's is needed
        made = OSError.__new__(cls)
        made.args = parts
        return made


def check_type(value, kind: type, place: str, error: type[BmnasError], allowed: str = ""):
    """``value`` itself. Raises ``error`` unless it is a ``kind``."""
    if not isinstance(value, kind):
        raise error(place, type(value).__name__, allowed or f"a {kind.__name__}")
    return value


def quoted(value: object, length: int = 80) -> str:
    """``repr(value)`` in one line of at most ``length`` characters."""
    return shortened(" ".join(map(str.strip, repr(value).splitlines())), length)


def printable(text: object) -> str:
    """A text in one line, with escapes in place of what a terminal could obey or not show."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, length: int) -> str:
    """``text``, cut to ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def in_line(error: Exception) -> str:
    """What a foreign exception says, in one line of at most 120 characters.

    Of the system's errors this is its reason alone, without the path.
    """
    if (number := getattr(error, "errno", None)) in errno.errorcode:
        return os.strerror(number)
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return shortened(" ".join(str(error).split()), 120)


def near_miss(name: object, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` if one of the ``known`` names is spelled nearly like ``name``."""
    close = difflib.get_close_matches(name, list(known), 1) if isinstance(name, str) else []
    return f" (did you mean {close[0]!r}?)" if close else ""
