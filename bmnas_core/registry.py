"""One kind of registry for everything that has a name and can be added to."""

import inspect
import re
from collections import UserDict
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from importlib import import_module

from .errors import BmnasError, near_miss, quoted


class Registry(UserDict):
    """Named parts of one kind, such as operations: a dictionary that checks what it is given.

    Args:
        kind: what a part is called in errors.
        error: class of the errors raised here, a :class:`BmnasError`.
        pattern: regular expression for names, and the same in words; any printable name by default.
        check: called with a name and a new part; raises ``error`` if the part does not work.
        on_demand: name → module that registers it. The module is imported at the first look-up.
    """

    def __init__(
        self,
        kind: str,
        error: type[BmnasError],
        *,
        pattern: tuple[str, str] = (r".*\S.*", "a printable name"),
        check: Callable[[str, object], None] | None = None,
        on_demand: Mapping[str, str] | None = None,
    ):
        self.kind, self.check, self._error, self._pattern = kind, check, error, pattern
        self._on_demand = on_demand or {}
        self.data = dict.fromkeys(self._on_demand)

    def register(self, name: str, **attributes):
        """Decorator: make a class or function the part called ``name``, with these attributes.

        Running the same definition again replaces the part, as in a notebook. Raises ``error`` for
        an ill-formed name, one that another part has, or a part that does not work.
        """
        self.check_name(name)

        def decorate(part):
            self.add(name, part)
            for attribute, value in attributes.items():
                setattr(part, attribute, value)
            return part

        return decorate

    def check_name(self, name: str) -> None:
        """Raise ``error`` for an ill-formed name, such as the part itself: ``@register`` alone."""
        pattern, words = self._pattern
        if not isinstance(name, str) or not name.isprintable() or not re.fullmatch(pattern, name):
            raise self._error(f"{self.kind} name", quoted(name), words)

    def add(self, name: str, part: object) -> None:
        """Make any object the part called ``name``. Raises as :meth:`register`."""
        self.check_name(name)
        known = self.data.get(name)
        if known is not None and _owner(known) != _owner(part):
            raise self._error(f"{self.kind} {name!r} exists already: {_owner(known)}")
        if self.check is not None:
            self.check(name, part)
        self.data[name] = part

    __setitem__ = add

    def __getitem__(self, name: str):
        """The part called ``name``. Raises ``error`` for an unknown one, with the nearest."""
        if name not in self:
            hint = near_miss(name, self)
            raise self._error(self.kind, f"{quoted(name)}{hint}", self.names)
        if self.data[name] is None:
            import_module(self._on_demand[name])
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.data

    def get(self, name: str, default=None):
        return self[name] if name in self else default  # noqa: SIM401

    @contextmanager
    def restored(self):
        """Undo at the end of the block what was added to the registry or removed from it."""
        before = dict(self.data)
        try:
            yield self
        finally:  # what was imported on demand stays, for its module does not run again
            imported = {name: self.data.get(name) for name, part in before.items() if part is None}
            self.data = before | imported

    @property
    def names(self) -> str:
        """All names in one line, separated by commas."""
        return ", ".join(self)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {self.names})"


def takes(function: object, count: int) -> bool:
    """Whether something is a function that can be called with ``count`` positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def _owner(part: object) -> str:
    """Where a part, or the definition that it names as its ``owner``, is found."""
    part = getattr(part, "owner", part)
    part = part if hasattr(part, "__qualname__") else type(part)
    return f"{part.__module__}.{part.__qualname__}"
