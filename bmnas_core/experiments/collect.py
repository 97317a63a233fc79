"""Many runs together: one tidy table, means over seeds, paired comparisons."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config import as_type
from ..draw.canvas import printable
from ..errors import BmnasError
from ..storage import atomic_write
from .results import (
    LEARNED,
    RUN_FILE,
    SWEEP_FILE,
    ResultError,
    known_metric,
    load_planned,
    load_result,
    load_run,
    networks,
    run_title,
)

if TYPE_CHECKING:
    import pandas as pd

#: Folders that are not searched for runs: a run's state, and a result that it is to replace.
SKIPPED = ("state", "earlier")
#: Suffix of the folder in which ``bmnas reproduce`` repeats a run; not searched either.
REPRODUCED = "-reproduced"
#: Suffixes of tables and of pages.
TABLES, PAGES = (".csv", ".parquet"), (".html", ".htm")
#: If a setting has more values than this, each is compared only with the first one.
MOST_VALUES = 6
VARIANT, SCORE = ["task", "rule", "protocol"], ["metric", "direction"]
#: Parameters that are not settings.
NO_SETTINGS = ("seed", "out")
#: Columns of a network in :attr:`Collection.runs`, and of the tables made of them.
OF_NETWORK = ("network", "test", "params", "seconds", "search_seconds", "train_seconds", "device")
COSTS = ["params", "seconds", "search_seconds", "train_seconds"]
OF_SUMMARY = ("network", "seeds", "test", "std", "low", "high", *COSTS)
OF_COMPARISONS = ("compared", "base", "other", "seeds", "difference", "std", "low", "high")
OF_FAILED = ("folder", "status", "error", "notebook", "parameters")


@dataclass(frozen=True)
class Run:
    """A folder of a run: its result, and what ``run.json`` says about it.

    ``status`` is "done" if the run has a result that can be relied on.
    """

    folder: Path
    result: dict | None
    record: dict | None
    status: str

    @property
    def parameters(self) -> dict:
        """The run's parameters, as far as they are known."""
        origin = (self.result or {}).get("provenance") or {}
        found = (self.record or {}).get("parameters") or origin.get("parameters")
        return found if isinstance(found, dict) else {}

    @property
    def error(self) -> str:
        said = (self.record or {}).get("error")
        return printable(" ".join(said.split())) if said else ""


@dataclass(frozen=True, eq=False, repr=False)
class Collection:
    """What :func:`collect` found; it shows itself as its :attr:`summary`.

    Attributes:
        done: runs with a result, ordered by what they ran.
        others: runs without one.
        settings: the parameters that vary over the runs, by which they are grouped; the notebook
            too if there are several.
        runs: a row for each run and network, with the columns ``task``, ``rule``, ``protocol``, the
            settings, ``metric``, ``direction``, ``seed``, ``network``, ``test``, ``params``,
            ``seconds``, ``search_seconds``, ``train_seconds``, ``device``, ``notebook`` and
            ``folder``. Seconds of a resumed run are NaN: they lack the work done before.
    """

    done: tuple[Run, ...]
    others: tuple[Run, ...]
    settings: tuple[str, ...]
    runs: pd.DataFrame

    @property
    def group(self) -> list[str]:
        """Columns in which runs agree that differ only in their seed."""
        return [*VARIANT, *self.settings, *SCORE]

    @property
    def failed(self) -> pd.DataFrame:
        """Runs without a result: ``folder``, ``status``, ``error``, ``notebook``, ``parameters``.

        The status is "running", "killed", "failed", "out of time", "interrupted", "no result", or
        "missing" for a run of a sweep that has not begun.
        """
        import pandas as pd

        rows = [
            {
                "folder": printable(str(run.folder)),
                "status": run.status,
                "error": run.error,
                "notebook": _notebook(run),
                "parameters": ", ".join(f"{k} {as_text(v)}" for k, v in run.parameters.items()),
            }
            for run in self.others
        ]
        return pd.DataFrame(rows, columns=OF_FAILED)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Each network over the seeds of a group, the best first.

        ``seeds`` is how many; ``test`` and ``std`` are mean and standard deviation, ``low`` and
        ``high`` the 95 % interval of the mean by Student's t, cut at the metric's limits;
        ``params``, ``seconds``, ``search_seconds`` and ``train_seconds`` are means.
        """
        rows = []
        for key, own in self._groups([*self.group, "network"]):
            metric = known_metric(key["metric"])
            least, most = metric.limits if metric else (None, None)
            mean, std, low, high = t_interval(own["test"])
            low = low if least is None else max(low, least)
            high = high if most is None else min(high, most)
            row = {**key, "seeds": len(own), "test": mean, "std": std, "low": low, "high": high}
            rows.append(row | own[COSTS].mean().to_dict())
        table = self._like_runs(rows, OF_SUMMARY).round({"params": 0}).astype({"params": int})
        merit = table["test"].where(table["direction"] == "max", -table["test"])
        place = table.groupby(self.group, sort=False, dropna=False).ngroup()
        table = table.assign(merit=merit, place=place)
        table = table.sort_values(["place", "merit"], ascending=[True, False], kind="stable")
        return table.drop(columns=["merit", "place"]).reset_index(drop=True)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Paired differences of test scores, over the seeds that both sides have.

        If ``compared`` is "network", ``other`` is a baseline and ``base`` the learned network of
        the same runs. Otherwise it is a setting, and ``other`` and ``base`` are two of its values,
        all else equal, for the learned network; if it has more than MOST_VALUES values, ``base`` is
        always the first. ``difference`` is the mean of other − base in the metric's units, ``std``
        the standard deviation of the differences, ``low`` and ``high`` the 95 % interval of their
        mean by Student's t. The intervals are not corrected for multiple comparisons.
        """
        rows = []
        for key, own in self._groups(self.group):
            wide = own.pivot(index="seed", columns="network", values="test")
            for name in wide.columns.drop(LEARNED):
                rows += _paired(key, "network", LEARNED, name, wide[LEARNED], wide[name])
        learned = self.runs[self.runs["network"] == LEARNED]
        for name in self.settings:
            rest = [column for column in self.group if column != name]
            for key, own in self._groups(rest, learned):
                values = {
                    value[name]: part.set_index("seed")["test"]
                    for value, part in self._groups([name], own)
                }
                pairs = list(combinations(values, 2))
                if len(values) > MOST_VALUES:
                    pairs = pairs[: len(values) - 1]
                for base, other in pairs:
                    sides = values[base], values[other]
                    rows += _paired(
                        {**key, name: None}, name, as_text(base), as_text(other), *sides
                    )
        return self._like_runs(rows, OF_COMPARISONS)

    def save(self, path: str | os.PathLike) -> Path:
        """Write :attr:`runs` as ``.csv`` or ``.parquet``. Raises :class:`BmnasError` otherwise."""
        path = checked_suffix(path, *TABLES)
        with atomic_write(path) as beside:
            if path.suffix.lower() == ".csv":
                self.runs.to_csv(beside, index=False)
            else:
                self.runs.to_parquet(beside, index=False)
        return path

    def differing(self) -> dict[str, dict[str, int]]:
        """The part of :meth:`origins` in which the runs differ: field → value → how many runs."""
        return {name: found for name, found in self.origins().items() if len(found) > 1}

    def origins(self) -> dict[str, dict[str, int]]:
        """Versions, machines, threads, commits, notebooks: field → value → how many runs."""
        counts: dict[str, dict[str, int]] = {}
        for run in self.done:
            for name, value in origin_of(run.result, run.record).items():
                of_name = counts.setdefault(name, {})
                of_name[value] = of_name.get(value, 0) + 1
        return counts

    def __repr__(self) -> str:
        return f"{self._title}\n{self.summary.to_string(index=False, na_rep='–')}"

    def _repr_html_(self) -> str:
        table = self.summary.dropna(axis="columns", how="all")
        table = table.to_html(index=False, na_rep="–", float_format="{:.4g}".format)
        return f"<p>{escape(self._title)}</p>{table}"

    @property
    def _title(self) -> str:
        without = f", {len(self.others)} without a result" if self.others else ""
        return f"{len(self.done)} runs{without}"

    def _groups(self, keys: list[str], table=None) -> Iterator[tuple[dict, pd.DataFrame]]:
        """Rows that agree in these columns, with what they agree in; in the table's order."""
        table = self.runs if table is None else table
        for values, own in table.groupby(keys, sort=False, dropna=False):
            pairs = zip(keys, values, strict=True)
            yield {key: None if _is_gap(value) else value for key, value in pairs}, own

    def _like_runs(self, rows: list[dict], columns: tuple[str, ...]) -> pd.DataFrame:
        """Rows of groups and of these columns; settings are of the types in :attr:`runs`."""
        import pandas as pd

        kinds = self.runs.dtypes[list(self.settings)].to_dict()
        return pd.DataFrame(rows, columns=[*self.group, *columns]).astype(kinds)


def collect(*folders: str | os.PathLike) -> Collection:
    """Folders of runs, and folders that hold such folders, as one :class:`Collection`.

    Runs are grouped by task, rule, protocol, metric and all parameters that vary over them; within
    a group each seed counts once. Folders in folders are searched at any depth, except ``state``,
    ``earlier``, ``…-reproduced`` and hidden ones. A run without a result is listed in
    :attr:`Collection.failed`.

    Raises :class:`ResultError` for a folder without a run, for a result that cannot be read, and
    for two runs that agree in all of this, the seed included: one result would count twice.
    """
    import pandas as pd

    found: dict[Path, Run] = {}
    for i, place in enumerate(folders):
        as_type(place, str | os.PathLike, f"folder {i + 1}", ResultError)
        runs = _without_covers(list(_runs_in(Path(place))))
        if not runs:
            allowed = "a folder with a result.json, or one that holds such folders"
            raise ResultError(place, "no run", allowed)
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    if not found:
        raise ResultError("found no runs; allowed: at least one folder with a result.json")
    done = [run for run in found.values() if run.status == "done"]
    others = tuple(run for run in found.values() if run.status != "done")
    settings = _settings(done)
    keys = [*VARIANT, *settings, *SCORE, "seed"]
    described = [{key: run.result.get(key) for key in (*VARIANT, *SCORE, "seed")} for run in done]
    table = pd.DataFrame(described, columns=[*VARIANT, *SCORE, "seed"])
    table = table.assign(run=range(len(done)), **settings)
    _refuse_repeats(done, table, keys)
    table = table.sort_values(keys, kind="stable", na_position="last")
    rows = [
        {"run": i, **_row(run, name, entry)}
        for i, run in enumerate(done)
        for name, entry in networks(run.result).items()
    ]
    columns = [name for name in (*OF_NETWORK, "notebook", "folder") if name not in settings]
    rows = pd.DataFrame(rows, columns=["run", *columns])
    runs = table.merge(rows, on="run", validate="one_to_many")[[*keys, *columns]]
    return Collection(tuple(done[i] for i in table["run"]), others, tuple(settings), runs)


def t_interval(values: Iterable[float]) -> tuple[float, float, float, float]:
    """Mean, standard deviation, and the 95 % interval of the mean of k values by Student's t.

    Five values: ± 2.78 standard errors. The last three are NaN for one value.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    k, mean = len(values), float(values.mean())
    if k < 2:
        return mean, math.nan, math.nan, math.nan
    std = float(values.std(ddof=1))
    reach = float(t.ppf(0.975, k - 1)) * std / math.sqrt(k)
    return mean, std, mean - reach, mean + reach


def checked_suffix(path: str | os.PathLike, *allowed: str) -> Path:
    """``path`` itself. Raises :class:`BmnasError` for another suffix than the allowed ones."""
    path = Path(path)
    if path.suffix.lower() not in allowed:
        raise BmnasError(path, f"suffix {path.suffix!r}", ", ".join(map(repr, allowed)))
    return path


def origin_of(result: dict, record: dict | None = None) -> dict[str, str]:
    """What a result depends on, as text by name; times, parameters and data are left out."""
    whole = dict(result.get("versions") or {})
    whole["device"] = result["device"]
    for name, value in (result.get("provenance") or {}).items():
        if name not in ("time", "parameters", "data", "git"):
            whole |= _leaves(name, value)
    git = (result.get("provenance") or {}).get("git")
    for name, state in git.items() if isinstance(git, dict) else ():
        if isinstance(state, dict):
            changed = "" if state.get("clean") else ", changed"
            whole[f"commit of {'the kit' if name == 'kit' else 'the folder'}"] = (
                f"{str(state.get('commit'))[:12]}{changed}"
            )
    for name in ("notebook", "notebook_sha256"):
        if record and record[name]:
            whole[name.replace("_", " ")] = record[name][:40]
    return {name: printable(as_text(value)) for name, value in whole.items() if value is not None}


def _leaves(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    return {f"{name} {inner}": deep for inner, deep in value.items()}


def _runs_in(place: Path) -> Iterator[Run]:
    """The runs in a folder and in its folders, in the order of their names."""
    if not place.is_dir():
        result = load_result(place)  # refuses what is not there
        yield Run(place.parent, result, load_run(place.parent), "done")
        return

    def refuse(error: OSError):
        raise ResultError(error.filename or place, error.strerror, "a folder that can be read")

    seen: set[str] = set()
    planned: dict[Path, dict] = {}
    for folder, inside, files in os.walk(place, onerror=refuse, followlinks=True):
        inside[:] = sorted(name for name in inside if _is_searched(name))
        if (real := os.path.realpath(folder)) in seen:  # a link led back
            inside.clear()
            continue
        seen.add(real)
        path = Path(folder)
        if {RUN_FILE, "result.json"} & set(files):
            run = _run(path, "result.json" in files)
            # A sweep whose notebook was mended no longer lists what failed before.
            if run.result or path.name in planned.get(path.parent, (path.name,)):
                yield run
        if SWEEP_FILE in files:
            planned[path] = load_planned(path)
            yield from _missing(path, planned[path])


def _is_searched(name: str) -> bool:
    return not (name in SKIPPED or name.startswith(".") or name.endswith(REPRODUCED))


def _without_covers(runs: list[Run]) -> list[Run]:
    """Without runs that ended well but only hold other runs, and have no result themselves."""
    inside = {parent for run in runs for parent in run.folder.parents}
    return [run for run in runs if run.status != "no result" or run.folder not in inside]


def _missing(folder: Path, planned: dict[str, dict]) -> Iterator[Run]:
    """The runs of a sweep that have not begun."""
    for name, record in planned.items():
        place = folder / name
        if not (place / RUN_FILE).exists() and not (place / "result.json").exists():
            yield Run(place, None, record, "missing")


def _run(folder: Path, has_result: bool) -> Run:
    record = load_run(folder)
    status = record["status"] if record else "done"
    if status == "done" and not has_result:
        status = "no result"
    return Run(folder, load_result(folder) if status == "done" else None, record, status)


def _row(run: Run, name: str, entry: dict) -> dict:
    seconds, search = entry["seconds"], entry.get("search_seconds")
    train = entry.get("train_seconds", None if search is None else seconds - search)
    if (run.result.get("provenance") or {}).get("resumed"):  # its times lack what was done before
        seconds = search = train = None
    return {
        "network": name,
        **{field: entry[field] for field in ("test", "params")},
        "seconds": math.nan if seconds is None else seconds,
        "search_seconds": math.nan if search is None else search,
        "train_seconds": math.nan if train is None else train,
        "device": printable(as_text(run.result["device"])),
        "notebook": _notebook(run),
        "folder": printable(str(run.folder)),
    }


def _notebook(run: Run) -> str | None:
    return printable(run.record["notebook"]) if run.record else None


def _settings(runs: list[Run]) -> dict[str, pd.Series]:
    """Parameters that vary over the runs and do not just repeat task, rule or protocol, by column.

    The notebook counts as one. A name that the table uses for another column gets ``_`` appended.
    """
    known = {name: [as_text(run.result.get(name)) for run in runs] for name in VARIANT}
    names = dict.fromkeys(name for run in runs for name in run.parameters)
    columns = {name: [run.parameters.get(name) for run in runs] for name in names}
    columns = {name: values for name, values in columns.items() if name not in NO_SETTINGS}
    columns["notebook"] = [_notebook(run) for run in runs]
    taken = {*VARIANT, *SCORE, "seed", "run", "folder", *OF_NETWORK, *OF_SUMMARY, *OF_COMPARISONS}
    taken |= {"merit", "place"}
    found = {}
    for name, values in columns.items():
        texts = [as_text(value) for value in values]
        repeats = (
            all(t in ("–", k) for t, k in zip(texts, of, strict=True)) for of in known.values()
        )
        if len(set(texts)) > 1 and not any(repeats):
            found[f"{name}_" if name in taken else name] = _as_column(values)
    return found


def _as_column(values: list) -> pd.Series:
    """Values of a parameter as numbers, if all are; else as texts. None is a gap."""
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    for allowed, dtype in (({bool}, "boolean"), ({int}, "Int64"), ({int, float}, "float64")):
        if kinds and kinds <= allowed:
            return pd.Series(values, dtype=dtype)
    return pd.Series([None if v is None else printable(as_text(v)) for v in values], dtype=object)


def _refuse_repeats(runs: list[Run], table: pd.DataFrame, columns: list[str]) -> None:
    """Raise :class:`ResultError` for two runs that are equal in these columns of the table."""
    again = table[table.duplicated(columns, keep=False)]
    for _, same in again.groupby(columns, sort=False, dropna=False):
        first, second = (runs[i] for i in same["run"].head(2))
        found = f"{run_title(second.result)}, as in {first.folder}"
        raise ResultError(second.folder, found, "each seed once")


def _paired(key: dict, compared: str, base: str, other: str, of_base, of_other) -> list[dict]:
    """The difference of two series of scores by seed, as a row; none without a common seed."""
    difference = (of_other - of_base).dropna()
    if difference.empty:
        return []
    mean, std, low, high = t_interval(difference)
    row = {**key, "compared": compared, "base": base, "other": other, "seeds": len(difference)}
    return [row | {"difference": mean, "std": std, "low": low, "high": high}]


def as_text(value: object) -> str:
    """A value of JSON as text: a string as it is, None as a dash."""
    if _is_gap(value):
        return "–"
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_gap(value: object) -> bool:
    """Whether a cell is empty: None, NaN or pandas' NA."""
    import pandas as pd

    return pd.api.types.is_scalar(value) and bool(pd.isna(value))
