"""The project "beat the default search": a variant of the task, its table, and safe scoring.

Students hand in one genotype for each announced seed. Their files are read as genotypes, no code of
theirs runs, and scores are looked up in a table in which every architecture was trained.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..benchmark import TabularBenchmark, read_benchmark, tabulate
from ..config import SearchSettings, Settings
from ..errors import BmnasError, printable, quoted
from ..experiments.collect import t_interval
from ..features import FeatureBank
from ..genotype import Genotype
from ..progress import progress_bar
from ..reading import parse_json, text_of
from ..runtime import as_seed
from ..search import Search
from ..storage import atomic_write
from ..tasks import Task, load_features, load_task
from ..tasks.files import asset

FORMAT = "bmnas-project/1"
#: Rules whose space has a table of every architecture.
RULES = ("same", "sum")
#: Seeds announced for the table that comes with the kit: the first of its benchmark's.
PRACTICE_SEEDS = range(2100, 2105)
STUDENTS, LECTURER = "for_students", "lecturer"
#: What a spreadsheet would run as a formula if a cell began with it.
_FORMULAS = ("=", "+", "-", "@")


class ProjectError(BmnasError):
    """A folder that is no project, or a submission that cannot be scored."""


def file_name(seed: int) -> str:
    """The file of a submission with the genotype for a seed, such as ``seed-2100.json``."""
    return f"seed-{seed}.json"


def make_variant(
    folder: str | os.PathLike,
    rule: str = "same",
    seeds: Sequence[int] = range(5),
    data_seed: int | None = None,
) -> Path:
    """Make a variant of ``digits`` for a course: other splits of images and voices, other pairs.

    ``for_students`` in the folder has features and labels of train and validation as .npy and .csv
    files, and the announced seeds; there are no test samples. ``lecturer`` has the seed of the
    data, which is drawn at random unless it is given, and must stay secret.

    Returns the folder. Raises ProjectError for another rule, no seeds or two equal ones, or a
    folder that has files.
    """
    folder, seeds = Path(folder), [as_seed(seed) for seed in seeds]
    if rule not in RULES:
        raise ProjectError("rule", quoted(rule), " or ".join(RULES))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ProjectError("seeds", quoted(seeds), "one or more, each once, of 0 or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(folder, "something there already", "a new or empty folder")
    data_seed = secrets.randbelow(2**48) + 1 if data_seed is None else as_seed(data_seed)
    task = load_task("digits", rule=rule, data_seed=data_seed)
    public = {"format": FORMAT, "rule": rule, "seeds": seeds}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        made = Path(beside, "made")
        _write_json(made / LECTURER / "project.json", public | {"data_seed": data_seed})
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
    about = _about(folder)
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
    """
    folder = Path(folder)
    about = _about(folder / LECTURER)
    task = load_task("digits", rule=about["rule"], data_seed=about["data_seed"])
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


@dataclass(frozen=True)
class Grades:
    """What submissions are worth.

    Attributes:
        table: a row for each student: ``student``, ``rank`` and ``regret`` (means over the seeds),
            ``difference`` (of regret from the default search's on the same seeds, below 0 is
            better), ``low`` and ``high`` (its 95 % interval), ``outcome`` (better, level, worse, or
            not scored) and ``remarks``. Best first.
        seeds: the announced seeds.
        default: regret of the default search for each seed.
    """

    table: pd.DataFrame
    seeds: tuple[int, ...]
    default: tuple[float, ...]


def score_submissions(
    submissions: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    rule: str = "same",
) -> Grades:
    """Score a folder with a folder for each student, each with a genotype for each announced seed.

    Args:
        submissions: its folders are named after students; in each, ``seed-0.json`` and so forth.
            Other files in them are ignored. Nothing in them is run, and links are not followed.
        folder: a project of :func:`make_variant` whose table was built; by default submissions are
            scored in the table that comes with the kit, for practice.
        rule: of the kit's table.

    Raises ProjectError for a folder that is no project or has no table, or without submissions.
    """
    submissions = Path(submissions)
    if not submissions.is_dir():
        raise ProjectError(submissions, "no folder", "a folder with a folder for each student")
    benchmark, defaults = _reference(folder, rule)
    own = {seed: benchmark.regret(genotype) for seed, genotype in defaults.items()}
    students = sorted(path for path in submissions.iterdir() if not path.name.startswith("."))
    students = [path for path in students if path.is_dir() or path.is_symlink()]
    if not students:
        raise ProjectError(submissions, "no folders", "one for each student")
    rows = [_grade(path, benchmark, own) for path in students]
    table = pd.DataFrame(rows).sort_values(["difference", "student"], ignore_index=True)
    return Grades(table, tuple(own), tuple(own.values()))


def _grade(student: Path, benchmark: TabularBenchmark, default: dict[int, float]) -> dict:
    """The row of a student."""
    name = printable(student.name)
    name = f"'{name}" if name.startswith(_FORMULAS) else name
    row = dict.fromkeys(("rank", "regret", "difference", "low", "high"), float("nan"))
    try:
        genotypes = [_submitted(student, seed) for seed in default]
        regrets = pd.Series([benchmark.regret(genotype) for genotype in genotypes])
    except BmnasError as error:
        return {"student": name, **row, "outcome": "not scored", "remarks": str(error)}
    mean, _, low, high = t_interval(regrets - pd.Series([*default.values()]))
    outcome = "better" if high < 0 else "worse" if low > 0 else "level"
    same = len({genotype.canonical() for genotype in genotypes}) == 1 < len(genotypes)
    return {
        "student": name,
        "rank": float(np.mean([benchmark.rank(genotype) for genotype in genotypes])),
        "regret": regrets.mean(), "difference": mean, "low": low, "high": high,
        "outcome": outcome, "remarks": "one architecture for all seeds" if same else "",
    }  # fmt: skip


def _submitted(student: Path, seed: int) -> Genotype:
    """A student's genotype for a seed, read as text of bounded size."""
    path = student / file_name(seed)
    if student.is_symlink() or path.is_symlink():
        raise ProjectError(path, "a link", "a file")
    return Genotype.load(path)


def _reference(folder, rule: str) -> tuple[TabularBenchmark, dict[int, Genotype]]:
    """The table, and what the default search found with each announced seed."""
    if folder is None:
        if rule not in RULES:
            raise ProjectError("rule", quoted(rule), " or ".join(RULES))
        found = read_benchmark(asset("results/digits_benchmark.csv"))
        found = found[(found["rule"] == rule) & (found["strategy"] == "default search")]
        found = found.set_index("seed")["genotype"]
        return TabularBenchmark("digits", rule), {seed: found[seed] for seed in PRACTICE_SEEDS}
    lecturer = Path(folder) / LECTURER
    about, table = _about(lecturer), lecturer / "table.parquet"
    if not table.exists():
        raise ProjectError(table, "nothing there", "a table: run `bmnas project table` first")
    paths = {seed: lecturer / "default" / file_name(seed) for seed in about["seeds"]}
    benchmark = TabularBenchmark(path=table)
    if benchmark.recipe["rule"] != about["rule"]:
        found = f"a table of rule {benchmark.recipe['rule']}"
        raise ProjectError(table, found, about["rule"])
    return benchmark, {seed: Genotype.load(path) for seed, path in paths.items()}


def _about(folder: Path) -> dict:
    """What a folder's project.json says. Raises ProjectError."""
    path = folder / "project.json"
    try:
        about = parse_json(text_of(path, 1 << 20), ProjectError, path)
    except (OSError, ValueError) as error:
        if isinstance(error, ProjectError):
            raise
        raise ProjectError(
            folder, "no project.json", "a folder of `bmnas project variant`"
        ) from None
    of_students = {"features": list, "settings": dict, "search": dict}
    wanted = {"rule": str, "seeds": list}
    wanted |= {"data_seed": int} if folder.name == LECTURER else of_students
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ProjectError(path, "another format", FORMAT)
    for name, kind in wanted.items():
        if type(about.get(name)) is not kind:
            raise ProjectError(f"{path}: {name}", quoted(about.get(name)), f"a {kind.__name__}")
    if about["rule"] not in RULES or not all(type(seed) is int for seed in about["seeds"]):
        raise ProjectError(path, "another rule or seeds", f"{' or '.join(RULES)}, whole numbers")
    if not all(type(name) is str for name in about.get("features", ())):
        raise ProjectError(f"{path}: features", quoted(about["features"]), "names")
    return about


def _write_json(path: Path, content: dict) -> None:
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
