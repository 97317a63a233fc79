"""What a run found: ``result.json`` beside the genotype, and many runs in one table."""

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from ..config import __version__, as_type
from ..errors import BmnasError, quoted
from ..genotype import Genotype
from ..metrics import METRICS
from ..storage import atomic_write

#: Fields that a result and each of its baselines must have, and of what type all fields are.
RESULT_TYPES = {
    "task": str, "rule": str | None, "seed": int, "device": object, "metric": str, "test": float,
    "params": float, "search_seconds": float, "train_seconds": float, "baselines": dict,
}  # fmt: skip
BASELINE_TYPES = {"test": float, "params": float, "seconds": float}
TYPES = RESULT_TYPES | BASELINE_TYPES | {"protocol": str | None, "direction": str}
#: Fields every ``result.json`` has; ``genotype`` and ``versions`` are added by :func:`save_run`.
RESULT_FIELDS, BASELINE_FIELDS = tuple(RESULT_TYPES), tuple(BASELINE_TYPES)
#: What tables call the network that a search found.
LEARNED = "learned by BM-NAS"
#: What :func:`save_run` writes, the result last: if it is there, the others are complete.
RESULT_FILES = ("genotype.json", "genotype.svg", "result.json")


class ResultError(BmnasError):
    """A result with missing fields, or with values that are not plain JSON."""


def save_run(out: str | os.PathLike, *, result: Mapping, genotype: Genotype) -> Path:
    """Write a run's ``result.json``, ``genotype.json`` and ``genotype.svg`` into ``out``.

    Adds ``genotype``, ``versions`` and the metric's ``direction`` to the result; floats are kept to
    six significant digits. Nothing is written unless all of it can be.

    Args:
        out: the folder, made if need be.
        result: at least :data:`RESULT_FIELDS`; ``protocol`` too if the task has one. ``baselines``
            is ``{name: {test, params, seconds}}``.
        genotype: the learned one.

    Returns the path of ``result.json``. Raises :class:`ResultError` for a missing field, by name,
    and for NaN, infinity and values that are not JSON, by place.
    """
    from ..draw import draw

    whole = _checked(result, "result", digits=6)
    as_type(genotype, Genotype, "genotype", ResultError)
    if "direction" not in whole and whole["metric"] in METRICS:
        whole["direction"] = METRICS[whole["metric"]].direction
    whole["genotype"] = json.loads(genotype.to_json())
    whole["versions"] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "bmnas": __version__,
    }
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    texts = genotype.to_json(), draw(genotype).svg, text
    out = writable_folder(Path(out))
    for name, text in zip(RESULT_FILES, texts, strict=True):
        with atomic_write(out / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return out / "result.json"


def writable_folder(out: Path) -> Path:
    """``out``, made if need be. Raises :class:`BmnasError` if nothing can be written to it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BmnasError("out", f"{out} ({error.strerror})", "a folder, made if need be") from None
    if not os.access(out, os.W_OK):
        raise BmnasError("out", f"{out}, which is read-only", "a folder to write to")
    return out


def load_result(path: str | os.PathLike) -> dict:
    """Read a ``result.json``, or the one in a run's folder.

    Raises :class:`ResultError` for a file that is missing, is not JSON, or lacks a field.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultError(path, why, "a result.json") from None
    return _checked(result, str(path))


def networks(result: Mapping) -> dict[str, dict]:
    """All networks of a result in the form of its ``baselines``, the learned one first."""
    learned = {"test": result["test"], "params": result["params"]}
    learned["seconds"] = result["search_seconds"] + result["train_seconds"]
    return {LEARNED: learned, **result["baselines"]}


def best_first(result: Mapping) -> list[tuple[str, dict]]:
    """The networks of a result with their names, the best first."""
    sign = -1 if lower_is_better(result) else 1
    return sorted(networks(result).items(), key=lambda item: -sign * item[1]["test"])


def lower_is_better(result: Mapping) -> bool:
    return result.get("direction") == "min"


def run_title(result: Mapping) -> str:
    """What a run was of, e.g. ``"digits, rule sum, seed 0"``."""
    kinds = ("rule", "protocol", "seed")
    named = (f"{kind} {result[kind]}" for kind in kinds if result.get(kind) is not None)
    return ", ".join((result["task"], *named))


def collect(folders: Iterable[str | os.PathLike]):
    """Folders of runs as a table: mean and spread over seeds, per task, variant and network.

    Returns a pandas DataFrame, best first within a task, rule, protocol and metric, with the
    columns ``task``, ``rule``, ``protocol``, ``metric``, ``network``, ``runs`` (how many), ``test``
    (mean), ``std`` (over runs, NaN for one), ``params`` and ``seconds`` (means; search and training
    together).

    Raises :class:`ResultError` for a folder without a result, and for two runs with the same task,
    rule, protocol and seed, which would count one seed twice.
    """
    import pandas as pd

    rows, seen, keys = [], {}, ["task", "rule", "protocol", "metric"]
    for folder in folders:
        result = load_result(folder)
        title = run_title(result)
        if title in seen:
            raise ResultError(folder, f"{title}, as in {seen[title]}", "each seed once")
        seen[title] = folder
        run_of = {key: result.get(key) for key in keys}
        sign = -1 if lower_is_better(result) else 1
        rows += [
            {**entry, **run_of, "network": name, "merit": sign * entry["test"]}
            for name, entry in networks(result).items()
        ]
    if not rows:
        raise ResultError("found no runs; allowed: at least one folder with a result.json")
    table = pd.DataFrame(rows).groupby([*keys, "network"], dropna=False, as_index=False)
    table = table.agg(
        runs=("test", "size"),
        test=("test", "mean"),
        std=("test", "std"),
        params=("params", "mean"),
        seconds=("seconds", "mean"),
        merit=("merit", "mean"),
    )
    table["params"] = table["params"].round().astype(int)
    table = table.sort_values([*keys, "merit"], ascending=[True] * len(keys) + [False])
    return table.drop(columns="merit")


def as_json(value: object, place: str = "value", *, digits: int | None = None) -> object:
    """``value`` in the types of JSON, with floats of so many significant ``digits``.

    Tuples become lists, numbers of NumPy and PyTorch Python's own. Raises :class:`ResultError`, by
    place, for what is not JSON: NaN, infinity, a lone surrogate, keys that are not strings, ….
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Mapping):
        if others := [name for name in value if not isinstance(name, str)]:
            raise ResultError(place, f"key {quoted(others[0])}", "strings")
        return {name: as_json(v, f"{place}.{name}", digits=digits) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v, f"{place}[{i}]", digits=digits) for i, v in enumerate(value)]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{digits}g}") if digits else value
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str) and value.encode(errors="ignore").decode() == value:
        return value
    allowed = "finite numbers, strings, true, false, null, lists and dicts of them"
    raise ResultError(place, quoted(value), allowed)


def _checked(result: object, place: str, digits: int | None = None) -> dict:
    """A result as JSON, or :class:`ResultError`."""
    result = as_json(result, place, digits=digits)
    _check_fields(place, result, RESULT_FIELDS)
    if LEARNED in result["baselines"]:
        raise ResultError(f"{place}.baselines", repr(LEARNED), "names of baselines")
    for name, entry in result["baselines"].items():
        _check_fields(f"{place}.baselines[{name!r}]", entry, BASELINE_FIELDS)
    return result


def _check_fields(place: str, entry: object, needed: tuple[str, ...]) -> None:
    as_type(entry, dict, place, ResultError)
    if missing := ", ".join(name for name in needed if name not in entry):
        raise ResultError(place, f"no field {missing}", f"at least {', '.join(needed)}")
    for name, kind in TYPES.items():
        if name in entry:
            as_type(entry[name], kind, f"{place}.{name}", ResultError)
