"""What a run found: ``result.json`` beside the genotype, and many runs in one table."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..config import __version__
from ..errors import BmnasError, quoted
from ..genotype import Genotype
from ..storage import atomic_write

#: Fields every ``result.json`` has; ``genotype`` and ``versions`` are added by :func:`save_run`.
RESULT_FIELDS = (
    "task", "rule", "seed", "device", "metric", "test", "params", "search_seconds", "train_seconds",
    "baselines",
)  # fmt: skip
BASELINE_FIELDS = ("test", "params", "seconds")
#: What tables call the network that a search found.
LEARNED = "learned by BM-NAS"
NUMBERS = ("test", "params", "seconds", "search_seconds", "train_seconds")

#: What :func:`save_run` writes, the result last: if it is there, the others are complete.
RESULT_FILES = ("genotype.json", "genotype.svg", "result.json")


class ResultError(BmnasError):
    """A result with missing fields, or with values that are not plain JSON."""


def save_run(out: str | os.PathLike, *, result: Mapping, genotype: Genotype) -> Path:
    """Write a run's ``result.json``, ``genotype.json`` and ``genotype.svg`` into ``out``.

    Adds ``genotype`` and ``versions`` to the result; floats are kept to six significant digits.
    Nothing is written unless all of it can be.

    Args:
        out: the folder, made if need be.
        result: at least :data:`RESULT_FIELDS`; ``protocol`` too if the task has one. ``baselines``
            is ``{name: {test, params, seconds}}``.
        genotype: the learned one.

    Returns:
        The path of ``result.json``.

    Raises:
        ResultError: for a missing field, by name, and for NaN, infinity and values that are not
            JSON, by place.
    """
    from ..draw import draw

    _check_result("result", result)
    if not isinstance(genotype, Genotype):
        raise ResultError(f"genotype: found {quoted(genotype)}; allowed: a Genotype")
    whole = {
        **_jsonable("result", result),
        "genotype": json.loads(genotype.to_json()),
        "versions": _versions(),
    }
    texts = (
        genotype.to_json(),
        draw(genotype).svg,
        json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    )
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
        raise BmnasError(
            f"out: found {out} ({error.strerror}); allowed: a folder, made if need be"
        ) from None
    if not os.access(out, os.W_OK):
        raise BmnasError(f"out: found {out}, which is read-only; allowed: a folder to write to")
    return out


def load_result(path: str | os.PathLike) -> dict:
    """Read a ``result.json``, or the one in a run's folder.

    Raises:
        ResultError: for a file that is missing, is not JSON, or lacks a field.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultError(f"{path}: found {why}; allowed: a result.json") from None
    _check_result(str(path), result)
    return result


def networks(result: Mapping) -> dict[str, dict]:
    """All networks of a result in the form of its ``baselines``, the learned one first."""
    learned = {
        "test": result["test"],
        "params": result["params"],
        "seconds": result["search_seconds"] + result["train_seconds"],
    }
    return {LEARNED: learned, **result["baselines"]}


def run_title(result: Mapping) -> str:
    """What a run was of, e.g. ``"digits, rule sum, seed 0"``."""
    kinds = ("rule", "protocol", "seed")
    named = (f"{kind} {result[kind]}" for kind in kinds if result.get(kind) is not None)
    return ", ".join((result["task"], *named))


def collect(folders: Iterable[str | os.PathLike]):
    """Runs side by side: mean and spread over seeds, for every task, rule or protocol, and network.

    Args:
        folders: of runs, each with a ``result.json``.

    Returns:
        A pandas DataFrame, best first within a task, rule and protocol, with the columns ``task``,
        ``rule``, ``protocol``, ``network``, ``runs`` (how many), ``test`` (mean), ``std`` (over
        runs, NaN for one), ``params`` and ``seconds`` (means; search and training together).

    Raises:
        ResultError: for a folder without a result, and for two runs with the same task, rule,
            protocol and seed, which would count one seed twice.
    """
    import pandas as pd

    rows, seen, keys = [], {}, ["task", "rule", "protocol"]
    for folder in folders:
        result = load_result(folder)
        title = run_title(result)
        if title in seen:
            raise ResultError(
                f"{folder}: found {title}, as in {seen[title]}; allowed: each seed once"
            )
        seen[title] = folder
        run_of = {key: result.get(key) for key in keys}
        for network, entry in networks(result).items():
            rows.append({**run_of, "network": network, **{n: entry[n] for n in BASELINE_FIELDS}})
    if not rows:
        raise ResultError("found no runs; allowed: at least one folder with a result.json")
    table = pd.DataFrame(rows).groupby([*keys, "network"], dropna=False, as_index=False)
    table = table.agg(
        runs=("test", "size"),
        test=("test", "mean"),
        std=("test", "std"),
        params=("params", "mean"),
        seconds=("seconds", "mean"),
    )
    table["params"] = table["params"].round().astype(int)
    return table.sort_values([*keys, "test"], ascending=[True, True, True, False])


def _check_result(place: str, result: object) -> None:
    _check_fields(place, result, RESULT_FIELDS)
    for name, kinds, allowed in (
        ("task", (str,), "a string"),
        ("rule", (str, type(None)), "a string or null"),
        ("protocol", (str, type(None)), "a string or null"),
        ("metric", (str,), "a string"),
        ("seed", (int,), "an integer"),
    ):
        found = result.get(name)
        if type(_scalar(found)) not in kinds:
            raise ResultError(f"{place}.{name}: found {quoted(found)}; allowed: {allowed}")
    if not isinstance(result["baselines"], Mapping):
        raise ResultError(
            f"{place}.baselines: found {quoted(result['baselines'])}; "
            f"allowed: a dict name → {{{', '.join(BASELINE_FIELDS)}}}"
        )
    if LEARNED in result["baselines"]:
        raise ResultError(f"{place}.baselines: found {LEARNED!r}; allowed: names of baselines")
    for name, entry in result["baselines"].items():
        _check_fields(f"{place}.baselines[{name!r}]", entry, BASELINE_FIELDS)


def _check_fields(place: str, entry: object, names: tuple[str, ...]) -> None:
    if not isinstance(entry, Mapping):
        raise ResultError(f"{place}: found {quoted(entry)}; allowed: a dict")
    missing = [name for name in names if name not in entry]
    if missing:
        raise ResultError(
            f"{place}: found no field {', '.join(missing)}; allowed: at least {', '.join(names)}"
        )
    for name in set(names) & set(NUMBERS):
        value = _scalar(entry[name])
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ResultError(f"{place}.{name}: found {quoted(value)}; allowed: a finite number")


def _jsonable(place: str, value: object) -> object:
    """``value`` in the types of JSON, floats rounded to six significant digits."""
    value = _scalar(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ResultError(f"{place}: found key {quoted(name)}; allowed: strings")
        return {name: _jsonable(f"{place}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(f"{place}[{i}]", inner) for i, inner in enumerate(value)]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str) and value.encode(errors="ignore").decode() == value:
        return value
    raise ResultError(
        f"{place}: found {quoted(value)}; allowed: finite numbers, strings, true, false, null, "
        "lists and dicts of them"
    )


def _scalar(value: object) -> object:
    """A number of NumPy or PyTorch as Python's own."""
    is_scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    return value.item() if is_scalar else value


def _versions() -> dict[str, str]:
    import numpy
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "bmnas": __version__,
    }
