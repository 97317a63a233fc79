"""The project "beat the default search": a variant of the task for a course, and its table.

Students hand in one genotype for each announced seed; :mod:`~bmnas_core.course.grading` scores it.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..benchmark import TabularBenchmark, data_hash, enumerate_architectures, tabulate
from ..config import SearchSettings, Settings
from ..errors import BmnasError, quoted
from ..features import FeatureBank
from ..progress import progress_bar
from ..reading import parse_json, text_of
from ..runtime import as_seed
from ..search import Search
from ..storage import atomic_write
from ..tasks import Task, load_features, load_task

FORMAT = "bmnas-project/1"
#: Rules whose space has a table of every architecture.
RULES = ("same", "sum")
STUDENTS, LECTURER = "for_students", "lecturer"
#: Announced seeds and seeds of data. The former differ from course to course, so that no submission
#: fits another one; the latter are too many to be tried.
ANNOUNCED, SECRET = range(10_000, 100_000), range(2**40, 2**48)


class ProjectError(BmnasError):
    """A folder that is no project, or a submission that cannot be scored."""


def file_name(seed: int) -> str:
    """The file of a submission with the genotype for a seed, such as ``seed-2100.json``."""
    return f"seed-{seed}.json"


def drawn_seeds(count: int) -> list[int]:
    """So many seeds to announce, others for each course."""
    return secrets.SystemRandom().sample(ANNOUNCED, min(max(count, 0), len(ANNOUNCED)))


def make_variant(
    folder: str | os.PathLike,
    rule: str = "same",
    seeds: int | Sequence[int] = 5,
    data_seed: int | None = None,
) -> Path:
    """Make a variant of ``digits`` for a course: other splits of images and voices, other pairs.

    ``for_students`` in the folder has features and labels of train and validation as .npy and .csv
    files, and the announced seeds; there are no test samples. ``lecturer`` has the seed of the
    data, which must stay secret: whoever knows it has the test samples.

    Args:
        folder: a new or empty one.
        rule: same or sum.
        seeds: the announced ones, two or more, or how many to draw at random.
        data_seed: of at least 2^40, so that nobody finds it by trying; drawn unless it is given.

    Returns the folder. Raises ProjectError for anything else.
    """
    folder = Path(folder).resolve()
    if rule not in RULES:
        raise ProjectError("rule", quoted(rule), " or ".join(RULES))
    if type(seeds) is int:
        seeds = drawn_seeds(seeds)
    seeds = [as_seed(seed) for seed in seeds]
    _require_seeds(seeds, "seeds")
    drawn = SECRET.start + secrets.randbelow(len(SECRET))
    data_seed = drawn if data_seed is None else as_seed(data_seed)
    if data_seed < SECRET.start:
        raise ProjectError("data_seed", data_seed, f"at least {SECRET.start:,}, to stay secret")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(folder, "something there already", "a new or empty folder")
    task = load_task("digits", rule=rule, data_seed=data_seed)
    public = {"format": FORMAT, "rule": rule, "seeds": seeds}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        made = Path(beside, "made")
        secret = {"data_seed": data_seed, "data": data_hash(task)}
        _write_json(made / LECTURER / "project.json", public | secret)
        _write_for_students(made / STUDENTS, task, public)
        made.replace(folder)
    return folder


def _write_for_students(students: Path, task: Task, public: dict) -> None:
    bank, splits = FeatureBank(task), ("train", "validation")
    parts = [bank.batch(name, torch.arange(bank.size(name))) for name in splits]
    for feature in task.features:
        values = torch.cat([features[feature] for features, _ in parts]).numpy()
        with atomic_write(students / f"{feature}.npy") as beside, beside.open("wb") as file:
            np.save(file, values, allow_pickle=False)
    names = [name for name in splits for _ in range(bank.size(name))]
    table = pd.DataFrame({"label": torch.cat([own for _, own in parts]).numpy(), "split": names})
    with atomic_write(students / "samples.csv") as beside:
        table.to_csv(beside, index=False)
    about = {"features": list(task.features), "settings": task.config.to_dict()}
    about["search"] = {k: v for k, v in task.search_config.to_dict().items() if v is not None}
    _write_json(students / "project.json", public | about)


def load_project(folder: str | os.PathLike) -> Task:
    """The task of a project, from the folder that its students were given.

    It has train and validation, and no test samples. ``task.notes["seeds"]`` are the announced
    seeds. Raises ProjectError for a folder that is none or was changed.
    """
    folder = Path(folder)
    about = read_about(folder)
    found = load_features(folder)
    if not {"labels", "splits"} <= set(found):
        raise ProjectError(folder / "samples.csv", "no labels and splits", "as it was handed out")
    features, arrays = {}, {k: v for own in found["features"].values() for k, v in own.items()}
    for name in about["features"]:  # in the order that genotypes use
        if name not in arrays:
            raise ProjectError(folder, f"no {name}.npy", "as it was handed out")
        features.setdefault(name.partition("_")[0], {})[name] = arrays[name]
    names = np.asarray(found["splits"])
    rows = {name: np.flatnonzero(names == name) for name in ("train", "validation")}
    config = Settings.from_dict(about["settings"])
    task = Task.from_features("project", features, found["labels"], rows, config=config)
    search = SearchSettings.from_dict(about["search"])
    return replace(task, search_config=search, notes={"seeds": about["seeds"]})


def build_table(folder: str | os.PathLike, table_seeds: int = 2, device: str = "auto") -> Path:
    """Train every architecture of a variant, and run the default search with the announced seeds.

    A second call continues the first, and two processes share the work. Returns the table's path.
    Raises ProjectError for one seed, which would not show how far a score is off by chance, and
    where the backbones of the variant do not come out as on the machine that made it.
    """
    folder = Path(folder)
    if table_seeds < 2:
        raise ProjectError("seeds of the table", table_seeds, "two or more")
    about = read_about(folder / LECTURER)
    task = load_task("digits", rule=about["rule"], data_seed=about["data_seed"])
    if data_hash(task) != about["data"]:
        found = "other features than those handed out"
        raise ProjectError(folder, found, "the machine and version that made the variant")
    students = load_project(folder / STUDENTS)
    for seed in progress_bar(about["seeds"], "default search"):
        path = folder / LECTURER / "default" / file_name(seed)
        if not path.exists():
            search = Search(students, seed=seed, device=device)
            for _ in search:
                pass
            search.best_genotype.save(path)
    table = folder / LECTURER / "table.parquet"
    tabulate(task, table, range(table_seeds), device=device)
    return table


def _require_seeds(seeds: list[int], place: str) -> None:
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ProjectError(place, quoted(seeds), "two or more, each once, of 0 or more")


def whole_table(folder: str | os.PathLike) -> TabularBenchmark:
    """The table of a variant.

    Raises ProjectError for none, one of another variant, and one that is not finished.
    """
    path = Path(folder) / LECTURER / "table.parquet"
    about, again = read_about(path.parent), "a whole table: run `bmnas project table` again"
    if not path.exists():
        raise ProjectError(path, "nothing there", "a table: run `bmnas project table` first")
    table = TabularBenchmark(path=path)
    recipe = table.recipe
    if (recipe.get("rule"), recipe.get("data")) != (about["rule"], about["data"]):
        found = f"a table of other data, of rule {recipe.get('rule')}"
        raise ProjectError(path, found, f"that of this variant, of rule {about['rule']}")
    operations, M = tuple(recipe["operations"]), recipe["config"]["M"]
    every = len(enumerate_architectures(tuple(recipe["features"]), M, operations))
    seeds = table.runs.groupby("genotype")["seed"].nunique()
    done = int((seeds == seeds.max()).sum())
    if done < every:
        raise ProjectError(path, f"{done:,} of {every:,} architectures with all seeds", again)
    if seeds.max() < 2:
        raise ProjectError(path, "one seed for each architecture", "two or more")
    return table


def read_about(folder: Path) -> dict:
    """What the project.json of one of a variant's two folders says. Raises ProjectError."""
    path = folder / "project.json"
    try:
        about = parse_json(text_of(path, 1 << 20), ProjectError, path)
    except (OSError, ValueError) as error:
        if isinstance(error, ProjectError):
            raise
        raise ProjectError(
            folder, "no project.json", f"the folder {STUDENTS} of `bmnas project variant`"
        ) from None
    of_students = {"features": list, "settings": dict, "search": dict}
    wanted = {"rule": str, "seeds": list}
    wanted |= {"data_seed": int, "data": str} if folder.name == LECTURER else of_students
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ProjectError(path, "another format", FORMAT)
    for name, kind in wanted.items():
        if type(about.get(name)) is not kind:
            raise ProjectError(f"{path}: {name}", quoted(about.get(name)), f"a {kind.__name__}")
    if about["rule"] not in RULES or not all(type(seed) is int for seed in about["seeds"]):
        raise ProjectError(path, "another rule or seeds", f"{' or '.join(RULES)}, whole numbers")
    if not all(type(name) is str for name in about.get("features", ())):
        raise ProjectError(f"{path}: features", quoted(about["features"]), "names")
    _require_seeds(about["seeds"], f"{path}: seeds")
    if "settings" in about:
        for name, value in {
            "M": about["settings"].get("M"),
            "N": about["settings"].get("N"),
        }.items():
            if type(value) is not int:
                raise ProjectError(f"{path}: settings.{name}", quoted(value), "a whole number")
        operations = about["search"].get("operations", [])
        if type(operations) is not list or not all(type(name) is str for name in operations):
            raise ProjectError(f"{path}: search.operations", quoted(operations), "names")
    return about


def _write_json(path: Path, content: dict) -> None:
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
