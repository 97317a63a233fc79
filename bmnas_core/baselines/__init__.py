"""Baselines of a searched network, on the same features, recipe and seed."""

from . import architectures, fusion_models, mfas, searches
from .context import BASELINES, BaselineContext, BaselineError, compare, register_baseline
from .searches import with_motif, with_random_pairs
from .table import read_baselines, run_baselines, summarize
