"""What one run leaves: ``result.json`` and the genotype, and in ``run.json`` how it was run."""

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..config import as_type
from ..errors import BmnasError, in_line, quoted, shortened
from ..genotype import Genotype
from ..locks import is_locked
from ..metrics import DIRECTIONS, METRICS, Metric
from ..reading import parse_json, text_of
from ..storage import atomic_write
from . import provenance as origin

#: Fields that a result and each of its baselines must have, and the types of all fields.
RESULT_TYPES = {
    "task": str, "rule": str | None, "seed": int, "device": object, "metric": str, "test": float,
    "params": float, "search_seconds": float, "train_seconds": float, "baselines": dict,
}  # fmt: skip
BASELINE_TYPES = {"test": float, "params": float, "seconds": float}
TYPES = RESULT_TYPES | BASELINE_TYPES
TYPES |= {"protocol": str | None, "direction": str, "provenance": dict | None, "versions": dict}
#: Fields of every ``result.json``; :func:`save_run` adds those of its provenance.
RESULT_FIELDS, BASELINE_FIELDS = tuple(RESULT_TYPES), tuple(BASELINE_TYPES)
#: Fields that are names, and those that are not below 0.
NAMES = ("task", "rule", "protocol", "metric", "direction")
COUNTS = ("params", "seconds", "search_seconds", "train_seconds")
#: No network has more parameters and no run takes more seconds; tables count in 64 bits.
MOST = 1e15
#: What tables call the network that a search found.
LEARNED = "learned by BM-NAS"
#: What :func:`save_run` writes. The result comes last: if it is there, the others are complete.
RESULT_FILES = ("genotype.json", "genotype.svg", "result.json")
#: The file in which a run describes itself, and its fields.
RUN_FILE, RUN_FORMAT = "run.json", "bmnas-run/1"
RUN_TYPES = {
    "notebook": str, "notebook_sha256": str | None, "parameters": dict, "status": str,
    "error": str | None, "started": str | None, "seconds": float | None,
    "resumed": float | None,
}  # fmt: skip
STATUSES = ("running", "done", "failed", "out of time", "interrupted")
#: Where a sweep's folder lists its runs.
SWEEP_FILE = "sweep.json"
#: Limits of what is read: bytes of a file, levels of lists and dicts, characters of a name.
MAX_BYTES, MAX_DEPTH, MAX_NAME = 1 << 26, 32, 200
#: Most characters of a name in JSON.
MOST_OF_NAME = 1000
#: How far rounding may take a score beyond its metric's limits.
ROUNDING = 1e-9


class ResultError(BmnasError):
    """A result with missing fields, or with values that are not plain JSON or out of range."""


def save_run(
    out: str | os.PathLike,
    *,
    result: Mapping,
    genotype: Genotype,
    bank=None,
    parameters: Mapping | None = None,
) -> Path:
    """Write a run's ``result.json``, ``genotype.json`` and ``genotype.svg`` into ``out``.

    Adds ``genotype``, the metric's ``direction``, ``versions`` and the rest of
    :func:`~bmnas_core.experiments.provenance.provenance` to the result. Nothing is written unless
    all of it can be.

    Args:
        out: the folder, made if need be.
        result: at least :data:`RESULT_FIELDS`; ``protocol`` too if the task has one. ``baselines``
            is ``{name: {test, params, seconds}}``.
        genotype: the learned one.
        bank: the :class:`~bmnas_core.features.FeatureBank` that was used, such as ``search.bank``.
        parameters: settings of the run by name, by which :func:`~bmnas_core.experiments.collect`
            tells runs apart; in a notebook that ``bmnas run`` runs, by default its parameters.

    Returns the path of ``result.json``. Raises :class:`ResultError` for a missing field, by name,
    and by place for a score out of its metric's limits, negative seconds, a name that is not
    printable, NaN, infinity and values that are not JSON.
    """
    from ..draw import draw
    from ..features import FeatureBank

    whole = _checked(result, "result")
    as_type(genotype, Genotype, "genotype", ResultError)
    as_type(bank, FeatureBank | None, "bank", ResultError)
    out = Path(out)
    record = _record_of_this_run(out)
    if parameters is None:
        parameters = record.get("parameters")
    parameters = _checked_parameters(parameters, "parameters")
    whole["genotype"] = json.loads(genotype.to_json())
    whole["versions"] = origin.versions()
    whole["provenance"] = origin.provenance(
        whole["device"], bank, parameters, record.get("resumed")
    )
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    texts = genotype.to_json(), draw(genotype).svg, text
    writable_folder(out)
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

    Raises :class:`ResultError` for a file that is missing, is not JSON, lacks a field or has one
    twice, and for values that :func:`save_run` would refuse.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    return _checked(_read_json(path, "a result.json"), str(path))


def load_run(folder: str | os.PathLike) -> dict | None:
    """A run's ``run.json`` in its folder; None for a folder without one.

    If it says "running" but no process holds the folder's lock, the status is "killed". Raises
    :class:`ResultError` as :func:`load_result` does.
    """
    folder = Path(folder)
    record = _read_record(folder / RUN_FILE)
    if record is not None and record["status"] == "running" and not _in_use(folder):
        record = _read_record(folder / RUN_FILE) or record  # it may have ended just now
        if record["status"] == "running":
            record["status"] = "killed"
    return record


def load_planned(folder: str | os.PathLike) -> dict[str, dict]:
    """The runs that a sweep's folder is to hold, as its ``sweep.json`` lists them, by folder.

    Each is as :func:`load_run` returns it, with the status "missing". Raises
    :class:`ResultError` as :func:`load_result` does.
    """
    path = Path(folder) / SWEEP_FILE
    whole = as_type(as_json(_read_json(path, f"a {SWEEP_FILE}"), path), dict, path, ResultError)
    runs = as_type(whole.get("runs"), dict, f"{path}: runs", ResultError)
    found = {}
    for name, about in runs.items():
        place = f"{path}: runs[{quoted(name)}]"
        check_run_name(name, place)
        about = as_type(about, dict, place, ResultError) | {"status": "running"}
        found[name] = _checked_record(about, place) | {"status": "missing"}
    return found


def check_run_name(name: str, place: str) -> None:
    """Raise :class:`ResultError` for what is no name of a folder inside another one."""
    if not re.fullmatch(r"[A-Za-z0-9_.+=,~-]{1,255}", name) or name in (".", ".."):
        raise ResultError(place, quoted(name), "a folder's name, as sweeps give them")


def _in_use(folder: Path) -> bool:
    try:
        return is_locked(folder)
    except OSError:  # nobody can hold a lock in a folder that is read-only
        return False


def _read_record(path: Path) -> dict | None:
    if not path.exists():
        return None
    record = as_type(as_json(_read_json(path, f"a {RUN_FILE}"), path), dict, path, ResultError)
    if record.get("format") != RUN_FORMAT:
        raise ResultError(path, f"format {quoted(record.get('format'))}", repr(RUN_FORMAT))
    return _checked_record(record, f"{path}")


def _checked_record(record: dict, place: str) -> dict:
    """A run's record with all fields, None by default; or :class:`ResultError`."""
    record = {name: None for name in RUN_TYPES} | record
    for name, kind in RUN_TYPES.items():
        as_type(record[name], kind, f"{place}: {name}", ResultError)
    if record["status"] not in STATUSES:
        allowed = ", ".join(STATUSES)
        raise ResultError(f"{place}: status", quoted(record["status"]), allowed)
    _check_count(record["seconds"], f"{place}: seconds")
    _check_count(record["resumed"], f"{place}: resumed")
    _checked_parameters(record["parameters"], f"{place}: parameters")
    return record


def _record_of_this_run(out: Path) -> dict:
    """The record of the run under way in the folder, which is the caller's; {} if there is none."""
    with suppress(ResultError):  # a result is kept whatever stands beside it
        record = load_run(out)
        if record and record["status"] == "running":
            return record
    return {}


def networks(result: Mapping) -> dict[str, dict]:
    """All networks of a result in the form of its ``baselines``, the learned one first."""
    learned = {name: result[name] for name in ("test", "params", "search_seconds", "train_seconds")}
    learned["seconds"] = result["search_seconds"] + result["train_seconds"]
    return {LEARNED: learned, **result["baselines"]}


def best_first(result: Mapping) -> list[tuple[str, dict]]:
    """The networks of a result with their names, the best first."""
    sign = -1 if lower_is_better(result) else 1
    return sorted(networks(result).items(), key=lambda item: -sign * item[1]["test"])


def lower_is_better(result: Mapping) -> bool:
    return result.get("direction") == "min"


def run_title(result: Mapping) -> str:
    """What was run, e.g. ``"digits, rule sum, seed 0"``."""
    kinds = ("rule", "protocol", "seed")
    named = (f"{kind} {result[kind]}" for kind in kinds if result.get(kind) is not None)
    return ", ".join((result["task"], *named))


def as_json(value: object, place: object = "value", depth: int = 0) -> object:
    """``value`` in the types of JSON.

    Tuples become lists, NumPy and PyTorch numbers plain ones. Raises :class:`ResultError`, which
    names the place, for what is not JSON: NaN, infinity, a lone surrogate, keys that are not
    strings, …; for integers of more than 64 bits; and for lists nested deeper than MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise ResultError(shortened(str(place), 120), "very deep nesting", f"{MAX_DEPTH} levels")
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Mapping):
        if others := [name for name in value if not _is_text(name) or len(name) > MOST_OF_NAME]:
            found, most = f"key {quoted(others[0])}", f"{MOST_OF_NAME:,}"
            raise ResultError(place, found, f"strings of up to {most} characters")
        return {name: as_json(v, f"{place}.{name}", depth + 1) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v, f"{place}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is None or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if _is_text(value):
        return value
    allowed = "finite numbers, strings, true, false, null, lists and dicts of them"
    if isinstance(value, int):
        raise ResultError(place, "an integer of more than 64 bits", allowed)
    raise ResultError(place, quoted(value), allowed)


def _is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can hold: one without lone surrogates."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def _read_json(path: Path, what: str) -> object:
    """What a file of JSON holds. Raises :class:`ResultError`, by path, if it is not ``what``."""
    try:
        text = text_of(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ResultError(path, in_line(error), what) from None
    return parse_json(text, ResultError, path)


def _checked(result: object, place: str) -> dict:
    """A result as JSON with its metric's direction, or :class:`ResultError`."""
    result = as_json(result, place)
    _check_fields(place, result, RESULT_FIELDS)
    if isinstance(result["device"], str):
        _check_name(result["device"], f"{place}.device")
    known = known_metric(result["metric"])
    result.setdefault("direction", known.direction if known else "max")
    if result["direction"] not in ((known.direction,) if known else DIRECTIONS):
        allowed = repr(known.direction) if known else ", ".join(map(repr, DIRECTIONS))
        raise ResultError(f"{place}.direction", quoted(result["direction"]), allowed)
    if LEARNED in result["baselines"]:
        raise ResultError(f"{place}.baselines", repr(LEARNED), "names of baselines")
    for name, entry in result["baselines"].items():
        where = f"{place}.baselines[{quoted(name)}]"
        _check_name(name, where)
        _check_fields(where, entry, BASELINE_FIELDS)
        _check_score(entry["test"], known, f"{where}.test")
    _check_score(result["test"], known, f"{place}.test")
    return result


def _check_fields(place: str, entry: object, needed: tuple[str, ...]) -> None:
    as_type(entry, dict, place, ResultError)
    if missing := ", ".join(name for name in needed if name not in entry):
        raise ResultError(place, f"no field {missing}", f"at least {', '.join(needed)}")
    for name, kind in TYPES.items():
        if name in entry:
            as_type(entry[name], kind, f"{place}.{name}", ResultError)
    for name in NAMES:
        if entry.get(name) is not None:
            _check_name(entry[name], f"{place}.{name}")
    for name in COUNTS:
        _check_count(entry.get(name), f"{place}.{name}")


def _check_name(name: str, place: str) -> None:
    if not name.isprintable() or not name.strip() or len(name) > MAX_NAME:
        allowed = f"printable text of 1 to {MAX_NAME} characters"
        raise ResultError(place, quoted(name), allowed)


def _check_count(value: float | None, place: str) -> None:
    if value is not None and not 0 <= value <= MOST:
        raise ResultError(place, value, "0 or more" if value < 0 else f"at most {MOST:.0e}")


def known_metric(name: str) -> Metric | None:
    """A metric by name; None for one that is not registered here, such as another user's own."""
    return METRICS[name] if name in METRICS else None  # noqa: SIM401


def _check_score(score: float, metric: Metric | None, place: str) -> None:
    """Refuse a score that the metric cannot have, rounding aside; None is an unknown metric."""
    least, most = metric.limits if metric else (None, None)
    if least is not None and score < least - ROUNDING:
        raise ResultError(place, score, f"at least {least:g}")
    if most is not None and score > most + ROUNDING:
        raise ResultError(place, score, f"at most {most:g}")


def _checked_parameters(parameters: object, place: str) -> dict | None:
    """Parameters as JSON, their names those of Python's variables; or :class:`ResultError`."""
    if parameters is None:
        return None
    parameters = as_json(as_type(parameters, Mapping, place, ResultError), place)
    for name in parameters:
        if not name.isidentifier() or len(name) > MAX_NAME:
            raise ResultError(place, f"key {quoted(name)}", "names of variables")
    return parameters
