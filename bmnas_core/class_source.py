"""The source of a user's class, and what it needs besides: for a module that stands alone."""

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from .errors import SourceError


class Import(NamedTuple):
    """``from module import own as name``, or ``import module as name`` if ``own`` is empty."""

    module: str
    own: str
    name: str


#: What these names mean in a function that imports them for itself.
USUAL = {"torch": torch, "nn": nn, "F": nn.functional, "Tensor": torch.Tensor}


def class_source(cls: type, place: str) -> tuple[str, set[Import]]:
    """Source of a class without its decorators, and what it needs to be imported.

    Raises SourceError if there is no source, or if it uses what is neither Python's nor torch's.
    ``place`` names the class in it.
    """
    text, known = _definition(cls, place)
    imports = set()
    for name in _free_names(symtable.symtable(text, "", "exec")):
        if name == cls.__name__ or (name not in known and hasattr(builtins, name)):
            continue
        found = _import(name, known.get(name))
        if found is None:
            outside = f"{name!r} in class {cls.__name__}, which is defined outside of it"
            raise SourceError(place, outside, "what Python and torch have")
        imports.add(found)
    return text, imports


def _definition(cls: type, place: str) -> tuple[str, dict[str, object]]:
    """The statement that defines a class, and the values of names that it can use.

    It is looked up by one of its methods: ``inspect`` does not find a class of a notebook.
    """
    try:
        method = next(value for value in vars(cls).values() if inspect.isfunction(value))
        lines, _ = inspect.findsource(method)
        row = method.__code__.co_firstlineno
        node = next(
            node
            for node in ast.walk(ast.parse("".join(lines)))
            if isinstance(node, ast.ClassDef)
            and node.name == cls.__name__
            and node.lineno <= row <= node.end_lineno
        )
    except (OSError, TypeError, SyntaxError, StopIteration):
        allowed = "a class that is written in a file or a notebook"
        raise SourceError(place, f"class {cls.__name__} without source", allowed) from None
    text = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))
    return text.rstrip(), USUAL | method.__globals__


def _free_names(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that a piece of source uses and does not define."""
    for symbol in table.get_symbols():
        outside = symbol.is_global() or table.get_type() == "module"
        if outside and symbol.is_referenced() and not symbol.is_assigned():
            yield symbol.get_name()
    for child in table.get_children():
        yield from _free_names(child)


def _import(name: str, value: object) -> Import | None:
    """What binds ``name`` to a part of Python or torch; None for anything else."""
    if isinstance(value, ModuleType):
        module, own = value.__name__, ""
    else:
        own = getattr(value, "__name__", "")
        homes = (getattr(value, "__module__", None), "torch", "torch.nn", "torch.nn.functional")
        module = next((h for h in homes if getattr(sys.modules.get(h), own, None) is value), "")
    if module.split(".")[0] not in {"torch", *sys.stdlib_module_names}:
        return None
    return Import("torch", "nn", "nn") if value is nn else Import(module, own, name)
