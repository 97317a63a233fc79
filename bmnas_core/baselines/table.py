"""The table of all baselines: every rule and seed in one resumable run, as a CSV file.

Before that, each baseline may choose among settings by validation, in a table of its own.
"""

import inspect
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from ..config import Config, ConfigError
from ..errors import check_type, in_line, quoted
from ..locks import share_work
from ..metrics import METRICS
from ..reading import parse_json, text_of
from ..runtime import device_name, resolve_device
from ..storage import ResumableTable, TableError, check_scores, read_table
from ..tasks.task import TASKS, Task, load_task
from ..train import TrainConfig
from .context import BASELINES, BaselineError, compare

#: The settings among which a baseline may choose.
SETTINGS = ("C", "L", "epochs", "max_lr")
_KEYS = {"task": "name", "rule": "name?", "options": "text?", "metric": "name", "seed": "count"}
_KEYS |= {"baseline": "name", "network": "name"} | dict.fromkeys(SETTINGS, "seconds?")
_COSTS = {"params": "count", "search_seconds": "seconds", "seconds": "seconds", "device": "name"}
COLUMNS = _KEYS | {"validation": "number", "test": "number"} | _COSTS
TRIED_COLUMNS = _KEYS | {"validation": "number"} | _COSTS

#: By these columns a row is told from all others.
ONE_ROW = ("task", "rule", "options", "seed", "baseline", "network", *SETTINGS)

#: The seed with which settings are tried.
SETTINGS_SEED = 0
#: The most bytes of a file of settings, and settings in it.
MOST_BYTES, MOST_SETTINGS = 1 << 20, 1000


def run_baselines(
    task: str | Task,
    rules: Iterable[str | None],
    seeds: Iterable[int],
    out: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    options: Mapping[str, object] | None = None,
    settings: Iterable[TrainConfig] | pd.DataFrame = (),
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Run baselines, all by default, for each rule and seed; write every result to a CSV file.

    ``task`` is a name or, without options and with its own rule, a task. A task without rules has
    the one rule None, an empty cell (:func:`default_rules`).

    Each network is scored on validation after it was trained on train, and on test after it was
    trained on both. With ``settings``, each has those that :func:`try_settings` finds best for
    it, whose table lies beside ``out``, at :func:`tried_path`; or those that are best for it in
    another such table. ``options`` are the task's, such as ``{"backbone_seed": 1}``.

    Results that the file already has are not computed again, even if settings or data have changed
    since; begin a new file then. Processes that write one file share the work, by rules, seeds and
    settings. ``seconds`` is search and training together. Raises BaselineError
    for an unknown name, and TableError if ``out`` exists and is not such a table.
    """
    names, rules = list(BASELINES if names is None else names), list(rules)
    table, device = ResumableTable(out, COLUMNS), resolve_device(device)
    load, tried = _loader(task, options), settings
    task_name = task.name if isinstance(task, Task) else task
    if isinstance(settings, pd.DataFrame):
        if list(settings.columns) != list(TRIED_COLUMNS):
            found = f"a table with columns {', '.join(map(str, settings.columns))}"
            raise BaselineError("settings", found, ", ".join(TRIED_COLUMNS))
    else:
        how = {"names": names, "options": options, "device": device}
        settings = list(settings)
        tried = try_settings(task, rules, tried_path(out), settings, **how) if settings else None
    chosen = {} if tried is None else best_settings(tried)
    groups = [
        ({"task": task_name, "rule": rule, "options": _as_text(options), "seed": seed}, *group)
        for seed, rule in product(seeds, rules)
        for group in _by_settings(names, chosen, rule or "")
    ]

    def missing(group: tuple[dict, TrainConfig, dict[str, list[str]]]) -> list[str]:
        run, _, wanted = group
        return [
            name
            for name, labels in wanted.items()
            if not all(
                table.holds(**run, baseline=name, **network)
                for network in [{"network": label} for label in labels] or [{}]
            )
        ]

    def compute(group: tuple[dict, TrainConfig, dict[str, list[str]]]) -> None:
        run, config, wanted = group

        def add(name: str, found: dict) -> None:
            same = {**run, "baseline": name, "device": device_name(device)}
            same |= {"metric": load(run["rule"]).metric}
            same |= _used(name, config.with_defaults(load(run["rule"]).config))
            kept = {label: found[label] for label in wanted[name] or found}
            table.add({**same, "network": label, **entry} for label, entry in kept.items())

        how = {"splits": ("validation", "test"), "device": device, "on_baseline": add}
        compare(load(run["rule"]), missing(group), config=config, seed=run["seed"], **how)

    share_work(out, groups, missing, compute, "rules and seeds", key=lambda group: group[:2])
    return _with_texts(table.frame())


def default_rules(task: str | Task) -> tuple[str | None, ...]:
    """The rules of a task's table unless others are named: sum and same, or None without rules."""
    if isinstance(task, Task):
        return (task.rule,)
    return ("sum", "same") if "rule" in inspect.signature(TASKS[task]).parameters else (None,)


def try_settings(
    task: str | Task,
    rules: Iterable[str | None],
    out: str | os.PathLike,
    settings: Iterable[TrainConfig],
    *,
    names: Iterable[str] | None = None,
    options: Mapping[str, object] | None = None,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Score each baseline on validation with each of ``settings``, and write a CSV file.

    All are trained on train alone, with seed :data:`SETTINGS_SEED`; test is not read. Settings that
    make no difference to a baseline are empty in its rows, and tried once. A second run continues
    the first. Raises as :func:`run_baselines`, and BaselineError for settings with other fields
    than :data:`SETTINGS`.
    """
    table, device = ResumableTable(out, TRIED_COLUMNS), resolve_device(device)
    load, task_name = _loader(task, options), task.name if isinstance(task, Task) else task
    same = {"task": task_name, "options": _as_text(options)}
    settings = [_as_setting(config) for config in settings]
    names = list(dict.fromkeys(BASELINES[name].like or name for name in names or BASELINES))
    runs = {}  # cells of a row → settings; those that differ in nothing that counts are one
    for rule, config, name in product(rules, settings, names):
        run = {**same, "rule": rule, "seed": SETTINGS_SEED, "baseline": name}
        run |= _used(name, config.with_defaults(load(rule).config))
        runs.setdefault(tuple(run.items()), config)

    def compute(run: dict) -> Iterator[dict]:
        task, config = load(run["rule"]), runs[tuple(run.items())]
        how = {"seed": SETTINGS_SEED, "device": device, "splits": ("validation",)}
        found = compare(task, [run["baseline"]], config=config, progress=False, **how)
        shared = {**run, "metric": task.metric, "device": device_name(device)}
        return ({**shared, "network": label, **entry} for label, entry in found.items())

    table.fill(map(dict, runs), compute, "rules, settings and baselines")
    tried = _with_texts(table.frame())
    return tried[tried["options"] == (same["options"] or "")]


def read_settings(path: str | os.PathLike) -> list[TrainConfig]:
    """The settings in a file, a JSON list of objects with fields of TrainConfig.

    Raises BaselineError for a file that is no such list, ConfigError for a field that is not one.
    """
    try:
        text = text_of(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise BaselineError(f"{path}: found no JSON ({in_line(error)})") from None
    listed = parse_json(text, BaselineError, path)
    if not isinstance(listed, list) or not listed:
        raise BaselineError(path, quoted(listed), "a list of settings")
    if len(listed) > MOST_SETTINGS:
        raise BaselineError(path, f"{len(listed):,} settings", f"at most {MOST_SETTINGS}")
    found = []
    for i, one in enumerate(listed):
        try:
            found.append(TrainConfig.from_dict(one))
        except ConfigError as error:
            raise ConfigError(f"{path}: [{i}]: {error}") from None
    return found


def _checked(path: str | os.PathLike, columns: Mapping[str, str]) -> pd.DataFrame:
    table = read_table(path, columns)
    for name in set(columns) & {"validation", "test"}:
        check_scores(path, table[name], name, table["metric"])
    one = [name for name in columns if name in ONE_ROW]
    if (twice := table.duplicated(one)).any():
        row = int(twice.to_numpy().argmax()) + 1
        raise TableError(f"{path}: row {row}", "the network of an earlier row", "each once")
    return table


def best_settings(tried: pd.DataFrame) -> dict[tuple[str, str, str], TrainConfig]:
    """Rule, baseline and network → the settings with the best validation score.

    Of equal ones those with the fewest parameters.
    """
    tried = _with_texts(tried)
    merit = tried["metric"].map(lambda name: METRICS[name].sign) * tried["validation"]
    order = tried.assign(merit=merit)
    order = order.sort_values(["merit", "params"], ascending=[False, True], kind="stable")
    best = order.groupby(["rule", "baseline", "network"], sort=False).first()
    return {
        key: TrainConfig(**{name: _number(name, row[name]) for name in SETTINGS})
        for key, row in best.iterrows()
    }


def tried_path(out: str | os.PathLike) -> Path:
    """Where the settings tried for a table of baselines lie."""
    return Path(out).with_name(f"{Path(out).stem}_settings.csv")


def read_baselines(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a table of baselines. TableError if the file is missing or not such a table."""
    return _with_texts(_checked(path, COLUMNS))


def read_tried(path: str | os.PathLike) -> pd.DataFrame:
    """The rows that :func:`try_settings` wrote. TableError as :func:`read_baselines`."""
    return _with_texts(_checked(path, TRIED_COLUMNS))


def _as_setting(config: TrainConfig) -> TrainConfig:
    """``config``, if it sets only what the table has columns for; else BaselineError."""
    check_type(config, TrainConfig, "settings", BaselineError)
    plain = TrainConfig().to_dict()
    for field, value in config.to_dict().items():
        if field not in SETTINGS and value != plain[field]:
            raise BaselineError("settings", f"field {field!r}", ", ".join(SETTINGS))
    return config


def _loader(task: str | Task, options: Mapping[str, object] | None) -> Callable[[str | None], Task]:
    def load(rule: str | None) -> Task:
        if not isinstance(task, Task):
            return load_task(task, **({} if rule is None else {"rule": rule}), **(options or {}))
        if options or rule != task.rule:
            found = f"options, or rule {rule!r}, beside a task"
            raise BaselineError(f"task {task.name!r}", found, f"no options, and rule {task.rule!r}")
        return task

    return cache(load)


def _with_texts(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an empty text for no rule and no options, and NaN for no setting."""
    texts = {name: table[name].astype(object) for name in ("rule", "options")}
    table = table.astype(dict.fromkeys(SETTINGS, float))
    return table.assign(**{name: text.where(text.notna(), "") for name, text in texts.items()})


def _as_text(options: Mapping[str, object] | None) -> str | None:
    """A task's options as a cell of the table."""
    return ", ".join(f"{name}={value}" for name, value in sorted((options or {}).items())) or None


def _used(name: str, config: Config) -> dict[str, object]:
    """The settings of a baseline's row; None for those that make no difference to it."""
    ignored = BASELINES[name].ignores
    return {field: None if field in ignored else getattr(config, field) for field in SETTINGS}


def _number(name: str, value: float) -> float | None:
    """A cell of the table as a setting."""
    if pd.isna(value):
        return None
    return float(value) if name == "max_lr" else int(value)


def _by_settings(
    names: list[str], chosen: dict[tuple[str, str, str], TrainConfig], rule: str
) -> Iterator[tuple[TrainConfig, dict[str, list[str]]]]:
    """Settings, each with the baselines that chose them and for which networks; [] is for all."""
    groups: dict[TrainConfig, dict[str, list[str]]] = defaultdict(dict)
    for name in names:
        like = BASELINES[name].like or name
        own = {key[2]: config for key, config in chosen.items() if key[:2] == (rule, like)}
        if like == name and own:
            for network, config in own.items():
                groups[config].setdefault(name, []).append(network)
        else:
            groups[next(iter(own.values()), TrainConfig())][name] = []
    yield from groups.items()


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Each network over its seeds, best first within a task and rule, these in the table's order.

    Returns:
        Columns ``task``, ``rule``, ``options``, ``metric``, ``network``, ``C``, ``L``, ``seeds``,
        ``validation`` (mean over seeds), ``test`` and ``std`` (mean and standard deviation),
        ``params``, ``search_seconds``, ``train_seconds``, and ``behind``: by how much a network's
        test score is behind the best one's, as the mean over the same seeds, and ``behind_std``;
        both in percentage points if scores are from 0 to 1.
    """
    keys = ["task", "rule", "options", "metric"]
    table = _with_texts(table)
    metrics = table["metric"].map(METRICS.__getitem__)
    table = table.assign(
        merit=metrics.map(lambda metric: metric.sign) * table["test"],
        unit=metrics.map(lambda metric: 100 if metric.share else 1),
    )
    means = table.groupby([*keys, "network"], sort=False)["merit"].mean()
    of_best = pd.MultiIndex.from_frame(table[means.index.names]).isin(means.groupby(keys).idxmax())
    best = table[of_best].groupby([*keys, "seed"])["merit"].mean().rename("best")
    table = table.join(best, on=best.index.names).assign(
        place=table.groupby(keys, sort=False).ngroup(),
        train_seconds=table["seconds"] - table["search_seconds"],
        behind=lambda joined: joined["unit"] * (joined["best"] - joined["merit"]),
    )
    found = table.groupby(["place", *keys, "network"], sort=False).agg(
        C=("C", "first"),
        L=("L", "first"),
        seeds=("seed", "size"),
        validation=("validation", "mean"),
        test=("test", "mean"),
        std=("test", "std"),
        params=("params", "mean"),
        search_seconds=("search_seconds", "mean"),
        train_seconds=("train_seconds", "mean"),
        behind=("behind", "mean"),
        behind_std=("behind", "std"),
        merit=("merit", "mean"),
    )
    found["params"] = found["params"].round().astype(int)
    found = found.sort_values(["place", "merit"], ascending=[True, False])
    return found.reset_index().drop(columns=["place", "merit"])
