"""Answers to the exercises of the notebooks that a student may well give, and that are wrong."""

from importlib import import_module
from pkgutil import iter_modules

WRONG = {
    name: answers
    for module in iter_modules(__path__)
    for name, answers in import_module(f"{__name__}.{module.name}").WRONG.items()
}
