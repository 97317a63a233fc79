"""Rivals of a searched network, on the same features, recipe and seed."""

from . import architectures, mfas, searches, streams
from .rivals import RIVALS, Contest, RivalError, compare, register_rival
from .searches import with_motif, with_random_pairs
from .table import TableError, read_table, run_table, summary

__all__ = [
    "RIVALS",
    "Contest",
    "RivalError",
    "TableError",
    "architectures",
    "compare",
    "mfas",
    "read_table",
    "register_rival",
    "run_table",
    "searches",
    "streams",
    "summary",
    "with_motif",
    "with_random_pairs",
]
