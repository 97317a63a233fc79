"""The table of all rivals: every rule and seed in one go, resumable, as CSV and as a figure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from ..config import BmnasError, device_name, resolve_device
from ..genotype import writing
from ..progress import progress_bar
from ..tasks.task import load_task
from .rivals import RIVALS, compare

COLUMNS = (
    "task", "rule", "seed", "rival", "network", "test", "params", "search_seconds", "seconds",
    "device",
)  # fmt: skip


class TableError(BmnasError):
    """A table that is none, or holds other columns."""


def run_table(
    task: str,
    rules: Iterable[str],
    seeds: Iterable[int],
    out: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Let all rivals compete for each rule and seed, and write every result to a CSV file.

    What the file has already is not run again, whatever it was made with: after a change of
    settings or data, begin another. ``seconds`` is search and training together.

    Args:
        names: of :data:`~bmnas_core.baselines.rivals.RIVALS`; all where None.

    Raises:
        TableError: if ``out`` is there and is no such table.
    """
    names, out = list(RIVALS if names is None else names), Path(out)
    rows = read_table(out).to_dict("records") if out.exists() else []
    done = {(row["task"], row["rule"], row["seed"], row["rival"]) for row in rows}
    plan = {
        (rule, seed): missing
        for seed, rule in product(seeds, rules)
        if (missing := [name for name in names if (task, rule, seed, name) not in done])
    }

    def add(rival: str, found: dict[str, dict]) -> None:
        for network, entry in found.items():
            numbers = {name: entry[name] for name in COLUMNS if name in entry}
            rows.append({**which, "rival": rival, "network": network, **numbers, "device": where})
        write_rows(out, rows, COLUMNS)

    where = device_name(resolve_device(device))
    for (rule, seed), missing in progress_bar(plan.items(), "rules and seeds"):
        which = {"task": task, "rule": rule, "seed": seed}
        loaded = load_task(task, rule=rule)
        compare(loaded, missing, seed=seed, device=device, on_rival=add)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a table of rivals.

    Raises:
        TableError: for a file that is missing or no such table.
    """
    return read_rows(path, COLUMNS)


def read_rows(path: str | os.PathLike, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file that must have these columns. Raises :class:`TableError` for any other."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: found no table ({error})") from None
    if list(table.columns) != list(columns):
        found = ", ".join(map(str, table.columns))
        raise TableError(f"{path}: found columns {found}; allowed: {', '.join(columns)}")
    return table


def write_rows(path: Path, rows: list[dict], columns: tuple[str, ...]) -> None:
    """Write rows as a CSV file, whole or not at all."""
    with writing(path) as beside:
        frame = pd.DataFrame(rows, columns=list(columns))
        frame.to_csv(beside, index=False, float_format="%.6g")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, best first within a task and rule.

    Tasks and rules come in the table's order.

    Columns: ``task``, ``rule``, ``network``, ``seeds``, ``test``, ``std``, ``params``,
    ``search_seconds`` and ``train_seconds``, and ``behind``: points of test score by which a
    network is behind the best, the mean over the same seeds, and ``behind_std``.
    """
    table = table.assign(train_seconds=table["seconds"] - table["search_seconds"])
    keys = ["task", "rule"]
    groups = table.groupby([*keys, "network"], sort=False)
    means = groups.agg(
        seeds=("seed", "size"),
        test=("test", "mean"),
        std=("test", "std"),
        params=("params", "mean"),
        search_seconds=("search_seconds", "mean"),
        train_seconds=("train_seconds", "mean"),
    ).reset_index()
    means["params"] = means["params"].round().astype(int)
    best = means.loc[means.groupby(keys)["test"].idxmax(), [*keys, "network"]]
    leader = best.merge(table, on=[*keys, "network"])[[*keys, "seed", "test"]]
    paired = table.merge(leader, on=[*keys, "seed"], suffixes=("", "_best"))
    paired["behind"] = 100 * (paired["test_best"] - paired["test"])
    behind = paired.groupby([*keys, "network"])["behind"].agg(["mean", "std"])
    behind = behind.rename(columns={"mean": "behind", "std": "behind_std"}).reset_index()
    means = means.merge(behind, on=[*keys, "network"])
    means["place"] = means.groupby(keys, sort=False).ngroup()
    means = means.sort_values(["place", "test"], ascending=[True, False], ignore_index=True)
    return means.drop(columns="place")
