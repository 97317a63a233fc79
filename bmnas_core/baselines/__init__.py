"""Baselines of a searched network, on the same features, recipe and seed."""

from . import architectures, classical, fusion_models, mfas, searches
from .context import BASELINES, BaselineContext, BaselineError, compare, register_baseline
from .searches import with_motif, with_random_pairs
from .table import (
    best_settings,
    default_rules,
    read_baselines,
    read_settings,
    read_tried,
    run_baselines,
    summarize,
    tried_path,
    try_settings,
)
