"""Rivals of a searched network, on the same features, recipe and seed."""

from . import architectures, mfas, searches, streams
from .rivals import RIVALS, Contest, RivalError, compare, register_rival

__all__ = [
    "RIVALS",
    "Contest",
    "RivalError",
    "architectures",
    "compare",
    "mfas",
    "register_rival",
    "searches",
    "streams",
]
