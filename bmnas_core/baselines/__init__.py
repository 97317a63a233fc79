"""Baselines of a searched network, on the same features, recipe and seed."""

from . import architectures, fusion_models, mfas, searches
from .context import BASELINES, BaselineContext, BaselineError, compare, register_baseline
from .searches import with_motif, with_random_pairs
from .table import read_baselines, run_baselines, summarize

__all__ = [
    "BASELINES",
    "BaselineContext",
    "BaselineError",
    "architectures",
    "compare",
    "fusion_models",
    "mfas",
    "read_baselines",
    "register_baseline",
    "run_baselines",
    "searches",
    "summarize",
    "with_motif",
    "with_random_pairs",
]
