"""Rivals of a searched network, on the same features, recipe and seed."""

from . import architectures, streams
from .rivals import RIVALS, Contest, RivalError, compare, register_rival

__all__ = [
    "RIVALS",
    "Contest",
    "RivalError",
    "architectures",
    "compare",
    "register_rival",
    "streams",
]
