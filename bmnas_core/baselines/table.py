"""The table of all baselines: every rule and seed in one resumable run, as a CSV file."""

import os
from collections.abc import Iterable
from itertools import product

import pandas as pd
import torch

from ..progress import progress_bar
from ..runtime import device_name, resolve_device
from ..storage import ResumableTable, read_table
from ..tasks.task import load_task
from .context import BASELINES, compare

COLUMNS = (
    "task", "rule", "seed", "baseline", "network", "test", "params", "search_seconds", "seconds",
    "device",
)  # fmt: skip


def run_baselines(
    task: str,
    rules: Iterable[str],
    seeds: Iterable[int],
    out: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Run baselines, all by default, for each rule and seed; write every result to a CSV file.

    Results that the file already has are not computed again, even if settings or data have changed
    since; begin a new file then. ``seconds`` is search and training together. Raises BaselineError
    for an unknown name, and TableError if ``out`` exists and is not such a table.
    """
    names, table = list(BASELINES if names is None else names), ResumableTable(out, COLUMNS)
    device = resolve_device(device)
    for seed, rule in progress_bar([*product(seeds, rules)], "rules and seeds"):
        run = {"task": task, "rule": rule, "seed": seed}
        missing = [name for name in names if not table.holds(**run, baseline=name)]

        def add(baseline: str, found: dict[str, dict], run=run) -> None:
            same = {**run, "baseline": baseline, "device": device_name(device)}
            table.add({**same, "network": network, **entry} for network, entry in found.items())

        if missing:
            loaded = load_task(task, rule=rule)
            compare(loaded, missing, seed=seed, device=device, on_baseline=add)
    return table.frame()


def read_baselines(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a table of baselines. TableError if the file is missing or not such a table."""
    return read_table(path, COLUMNS)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Each network over its seeds, best first within a task and rule, these in the table's order.

    Returns:
        Columns ``task``, ``rule``, ``network``, ``seeds``, ``test`` and ``std`` (mean and standard
        deviation over seeds), ``params``, ``search_seconds``, ``train_seconds``, and ``behind``:
        by how many percentage points of test score a network is behind the best one, as the mean
        over the same seeds, and ``behind_std``.
    """
    keys = ["task", "rule"]
    means = table.groupby([*keys, "network"], sort=False)["test"].mean()
    of_best = pd.MultiIndex.from_frame(table[means.index.names]).isin(means.groupby(keys).idxmax())
    best = table[of_best].groupby([*keys, "seed"])["test"].mean().rename("best")
    table = table.join(best, on=best.index.names).assign(
        place=table.groupby(keys, sort=False).ngroup(),
        train_seconds=table["seconds"] - table["search_seconds"],
        behind=lambda joined: 100 * (joined["best"] - joined["test"]),
    )
    found = table.groupby(["place", *keys, "network"], sort=False).agg(
        seeds=("seed", "size"),
        test=("test", "mean"),
        std=("test", "std"),
        params=("params", "mean"),
        search_seconds=("search_seconds", "mean"),
        train_seconds=("train_seconds", "mean"),
        behind=("behind", "mean"),
        behind_std=("behind", "std"),
    )
    found["params"] = found["params"].round().astype(int)
    found = found.sort_values(["place", "test"], ascending=[True, False])
    return found.reset_index().drop(columns="place")
