"""Specs of sweeps: which runs of a notebook to do, all checked before the first one starts."""

import hashlib
import json
import math
import os
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ..config import as_type
from ..errors import BmnasError, near_miss, quoted
from ..reading import read_bytes
from .expressions import Expression
from .parameters import (
    Parameter,
    notebook_hash,
    parameter_named,
    parameters_of,
    read_notebook,
)
from .plain_yaml import read_yaml
from .results import as_json

#: The most runs of a spec, before its filter.
MAX_RUNS = 10_000
#: Bounds of ranges are smaller, so that integers are exact.
MAX_NUMBER = 1e15
#: The longest name of a run's folder, without what makes it unique.
MAX_NAME = 100

FIELDS = {
    "notebook": str, "parameters": dict, "grid": dict, "list": list, "random": dict, "sobol": dict,
    "seeds": int | list, "filter": str, "timeout": int, "time_limit": float,
}  # fmt: skip
SAMPLE_FIELDS = {"count": int, "seed": int, "parameters": dict}
#: From the bounds of a range and a number in [0, 1) to a value.
RANGES: dict[str, Callable] = {
    "uniform": lambda low, high, u: _clipped(low * (1 - u) + high * u, low, high),
    "log_uniform": lambda low, high, u: _clipped(
        math.exp(math.log(low) * (1 - u) + math.log(high) * u), low, high
    ),
    "integers": lambda low, high, u: low + int((high - low + 1) * u),
}


class SpecError(BmnasError):
    """A spec that is not valid, or does not fit its notebook."""


@dataclass(frozen=True)
class Spec:
    """A checked spec: the runs of one notebook.

    ``content`` is the notebook's file, ``sha256`` the hash of its cells. ``runs`` holds the values
    of all parameters of each run, defaults included, without ``out``; ``source`` is what was given.
    ``timeout`` is in seconds per cell, ``time_limit`` in seconds per run.
    """

    notebook: Path
    content: bytes
    sha256: str
    runs: tuple[dict[str, object], ...]
    source: dict
    timeout: int | None = None
    time_limit: float | None = None

    def names(self, taken: Iterable[str], named: Mapping[str, str]) -> list[str]:
        """A folder's name for each run, by what varies: ``"relaxation=pair,rule=sum,seed=0"``.

        All are different, also where capitals do not count, and allowed on every system: a name
        that is taken, too long or has other characters ends in ``~`` and a hash.

        Args:
            taken: names of other things.
            named: the names that runs have already, by :func:`run_key`.
        """
        different = [k for k in self.runs[0] if len({as_key(run[k]) for run in self.runs}) > 1]
        varying = sorted(different, key=lambda name: (name == "seed", name))
        used = {name.casefold() for name in (*taken, *named.values())}
        names = []
        for run in self.runs:
            key = run_key(self.sha256, run)
            if (name := named.get(key)) is None:
                name, exact = _readable(run, varying)
                if not exact or name.casefold() in used:
                    name += "~" + key[:12]
                used.add(name.casefold())
            names.append(name)
        return names


def read_spec(spec: str | os.PathLike | Mapping) -> Spec:
    """A spec from a YAML file, or from a dict of the same fields.

    ``notebook`` is relative to the file's folder; in a dict, to the current one. ``parameters`` are
    the same for all runs. What varies is given by ``grid`` (every combination of values), ``list``
    (sets of values as written), ``random`` and ``sobol`` (``count`` points of a space, by ``seed``;
    equal points count once) and ``seeds`` (how many, or which). With several of these, every
    combination is a run. ``filter`` keeps the runs for which an expression is true.

    Raises :class:`SpecError`, which names the place, for anything else, and what
    :func:`~bmnas_core.experiments.notebook_parameters` raises.
    """
    if isinstance(spec, Mapping):
        folder, place, fields = Path(), "spec", as_json(spec, "spec")
    else:
        as_type(spec, str | os.PathLike | dict, "spec", SpecError)
        folder, place = Path(spec).parent, str(spec)
        fields = read_yaml(Path(spec), SpecError, "a YAML file")
    _check_fields(fields, FIELDS, place, needed=("notebook",))
    for name in ("timeout", "time_limit"):
        if not 0 < fields.get(name, 1) < math.inf:
            raise SpecError(f"{place}: {name}", fields[name], "seconds, more than 0")
    notebook = folder / fields["notebook"]
    nb = read_notebook(notebook)
    known = parameters_of(nb, notebook)
    sources = _sources(fields, known, notebook, place)
    many = math.prod(map(len, sources))
    if many > MAX_RUNS:
        raise SpecError(place, f"{many:,} runs", f"at most {MAX_RUNS:,}")
    defaults = {name: p.default for name, p in known.items() if name != "out"}
    runs = [dict(ChainMap(*parts, defaults)) for parts in product(*sources)]
    if "filter" in fields:
        holds = Expression(fields["filter"], defaults, f"{place}: filter")
        if not (runs := [run for run in runs if holds(run)]):
            raise SpecError(
                f"{place}: filter", "no run for which it is true", "one that keeps at least one run"
            )
    limits = fields.get("timeout"), fields.get("time_limit")
    content = read_bytes(notebook)
    return Spec(notebook, content, notebook_hash(nb), tuple(runs), fields, *limits)


# --- what varies


def _sources(
    fields: dict, known: Mapping[str, Parameter], notebook: Path, place: str
) -> list[list[dict]]:
    """Lists of values by name, of which a run takes one from each."""
    written: list[tuple[str, list]] = [("parameters", [fields.get("parameters", {})])]
    for name, options in fields.get("grid", {}).items():
        as_type(options, list, f"{place}: grid.{name}", SpecError)
        written.append((f"grid.{name}", [{name: option} for option in options]))
    if "list" in fields:
        for i, entry in enumerate(fields["list"]):
            as_type(entry, dict, f"{place}: list[{i}]", SpecError)
        written.append(("list", fields["list"]))
    for kind in ("random", "sobol"):
        if kind in fields:
            space = fields[kind].get("parameters")
            for name in space if isinstance(space, dict) else ():
                parameter_named(name, known, notebook)  # before any point is made
            written.append((kind, _sample(fields[kind], kind, f"{place}: {kind}")))
    if "seeds" in fields:
        seeds = fields["seeds"]
        if isinstance(seeds, int):
            _check_count(seeds, f"{place}: seeds")
            seeds = range(seeds)
        written.append(("seeds", [{"seed": seed} for seed in seeds]))

    sources, owners = [], {}
    for where, entries in written:
        if not entries:
            raise SpecError(f"{place}: {where}", "an empty list", "at least one")
        for name in dict.fromkeys(name for entry in entries for name in entry):
            if name in owners:
                found = f"{name!r}, as in {owners[name]}"
                raise SpecError(f"{place}: {where}", found, "each parameter in one place")
            owners[name] = where
        drawn = where in ("random", "sobol")
        sources.append(_checked(entries, known, notebook, f"{place}: {where}", drawn))
    return sources


def _checked(
    entries: list[dict], known: Mapping[str, Parameter], notebook: Path, place: str, drawn: bool
) -> list[dict]:
    """Entries with values of the notebook's types, completed by its defaults, each once."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    found: dict[str, dict] = {}
    for i, entry in enumerate(entries):
        here = f"{place}[{i}]" if len(entries) > 1 else place
        try:
            whole = {
                name: parameter.check(entry[name]) if name in entry else parameter.default
                for name in names
                for parameter in [parameter_named(name, known, notebook)]
            }
        except BmnasError as error:
            raise SpecError(f"{here}: {error}") from None
        if as_key(whole) in found and not drawn:
            raise SpecError(here, f"{quoted(entry)} again", "each once")
        found.setdefault(as_key(whole), whole)
    return list(found.values())


def _sample(fields: dict, kind: str, place: str) -> list[dict]:
    """Points of a space: independent (``random``), or of a scrambled Sobol sequence."""
    _check_fields(fields, SAMPLE_FIELDS, place, needed=("count", "parameters"))
    count, seed = fields["count"], fields.get("seed", 0)
    _check_count(count, f"{place}.count")
    if seed < 0:
        raise SpecError(f"{place}.seed", seed, "an integer of 0 or more")
    spaces = {
        name: _space(space, f"{place}.parameters.{name}")
        for name, space in fields["parameters"].items()
    }
    if not spaces:
        raise SpecError(f"{place}.parameters", "none", "at least one")
    if kind == "random":
        points = np.random.default_rng(seed).random((count, len(spaces)))
    else:
        from scipy.stats.qmc import Sobol

        # Whole powers of two keep the sequence balanced; what is asked for is its beginning.
        sequence = Sobol(len(spaces), scramble=True, seed=seed)
        points = sequence.random_base2(math.ceil(math.log2(count)))[:count]
    return [
        {name: space(u) for (name, space), u in zip(spaces.items(), point, strict=True)}
        for point in points.tolist()
    ]


def _space(space: object, place: str) -> Callable[[float], object]:
    """A function from [0, 1) to values: those of a list, or of a range."""
    if isinstance(space, list) and space:
        return lambda u: space[int(u * len(space))]
    ranges = ", ".join(f"{name}: [low, high]" for name in RANGES)
    if not isinstance(space, dict) or len(space) != 1 or not space.keys() <= RANGES.keys():
        raise SpecError(place, quoted(space), f"a list of values, or {{{ranges}}} (one of them)")
    ((name, ends),) = space.items()
    kind = int if name == "integers" else float
    low, high = as_type(ends, tuple[kind, kind], f"{place}.{name}", SpecError)
    least = 0.0 if name == "log_uniform" else -MAX_NUMBER
    if not least < low < high < MAX_NUMBER:
        raise SpecError(f"{place}.{name}", quoted(ends), f"{least:g} < low < high < {MAX_NUMBER:g}")
    return lambda u: RANGES[name](low, high, u)


def _clipped(value: float, low: float, high: float) -> float:
    """``value`` with six significant digits, so that names are short, between low and high."""
    return min(max(float(f"{value:.6g}"), low), high)


# --- names


def _readable(run: dict, varying: list[str]) -> tuple[str, bool]:
    """A name of a run, and whether it is allowed everywhere and complete."""
    texts = {k: run[k] if isinstance(run[k], str) else as_key(run[k]) for k in varying}
    plain = {k: re.sub(r"[^A-Za-z0-9_.+-]+", "-", text) for k, text in texts.items()}
    name = ",".join(f"{re.sub('[^A-Za-z0-9_]', '-', k)}={text}" for k, text in plain.items())
    name = name or "run"
    exact = plain == texts and name.isascii() and all(map(str.isascii, varying))
    return name[:MAX_NAME], exact and len(name) <= MAX_NAME and not name.endswith(".")


def run_key(notebook_sha256: str, parameters: Mapping[str, object]) -> str:
    """What tells runs apart: a hash of the notebook and of all parameters."""
    return hashlib.sha256((notebook_sha256 + as_key(parameters)).encode()).hexdigest()


def as_key(value: object) -> str:
    """A value as text, which is equal only for equal values: 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


# --- fields


def _check_fields(fields: object, kinds: Mapping, place: str, needed: Iterable[str]) -> None:
    """Bring fields to their types, or raise :class:`SpecError`."""
    as_type(fields, dict, place, SpecError)
    for name in fields:
        if name not in kinds:
            found = f"field {quoted(name)}{near_miss(name, kinds)}"
            raise SpecError(place, found, ", ".join(kinds))
        fields[name] = as_type(fields[name], kinds[name], f"{place}: {name}", SpecError)
    for name in needed:
        if name not in fields:
            raise SpecError(place, f"no field {name}", ", ".join(kinds))


def _check_count(count: int, place: str) -> None:
    if not 1 <= count <= MAX_RUNS:
        raise SpecError(place, f"{count:,}", f"1 … {MAX_RUNS:,}")
