"""Scoring what students hand in to the project: one genotype for each announced seed.

Their files are read as genotypes, no code of theirs runs, and scores are looked up in a table in
which every architecture was trained.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..benchmark import TabularBenchmark, read_benchmark
from ..errors import BmnasError, in_line, printable, quoted, shortened
from ..experiments.collect import checked_suffix, t_interval
from ..genotype import DEFAULT_OPERATIONS, Genotype
from ..reading import text_of
from ..storage import atomic_write
from ..tasks.files import asset
from .project import LECTURER, RULES, ProjectError, file_name, read_about, whole_table

#: Seeds announced for the tables that come with the kit, some of those of their benchmarks. No
#: submission for the one rule is scored as one for the other.
PRACTICE_SEEDS = {"same": range(2100, 2105), "sum": range(2105, 2110)}
#: Most bytes of a file that is handed in; a genotype of the space has less than one in ten of them.
MOST_BYTES = 20_000
#: What operating systems, unpackers and programs leave beside files, besides files with a dot.
LITTER = ("__MACOSX", "__pycache__", ".ipynb_checkpoints", ".git", "Thumbs.db", "desktop.ini")
#: A file of a submission, by itself and beside those of others: of whom, and its own name.
_FILE = re.compile(r"seed-\d+\.json")
_FLAT = re.compile(r"(.+?)_(seed-\d+\.json)")
#: A file or folder as Moodle names it: of whom, and a file's own name.
_MOODLE = re.compile(r"(.+?)_assignsubmission_file_(.*)", re.DOTALL)
_ONLINE_TEXT = re.compile(r"(.+?)_assignsubmission_onlinetext_.*", re.DOTALL)
_ARCHIVE = re.compile(r"\.(zip|rar|7z|tar|tgz|gz|xz|bz2)$", re.IGNORECASE)
#: Where a spreadsheet would begin a formula: in a cell, or behind what may separate cells.
_FORMULA = re.compile(r"(^|[;,\t])(\s*)(?=[=+\-@＝＋－＠])")


@dataclass(frozen=True)
class Space:
    """What a genotype must be made of to be in the table."""

    features: tuple[str, ...]
    M: int
    operations: tuple[str, ...]

    def require(self, genotype: Genotype, place: str) -> None:
        """Raise ProjectError, naming the place, for a genotype outside the space."""
        if genotype.features != self.features:
            found, allowed = (", ".join(names) for names in (genotype.features, self.features))
            raise ProjectError(
                f"{place}: features", shortened(found, 80), f"{allowed}, in this order"
            )
        if len(genotype.cells) != 1:
            raise ProjectError(f"{place}: cells", len(genotype.cells), "1")
        (cell,) = genotype.cells
        if len(cell.steps) != self.M:
            raise ProjectError(f"{place}: steps", len(cell.steps), self.M)
        for j, step in enumerate(cell.steps):
            if step.op not in self.operations:
                where = f"{place}: cells[0].steps[{j}].op"
                raise ProjectError(where, quoted(step.op), ", ".join(self.operations))


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

    def save(self, path: str | os.PathLike) -> Path:
        """Write the table as CSV. No cell of it is a formula, whatever a student's name is.

        Raises BmnasError for a path that does not end in .csv.
        """
        with atomic_write(checked_suffix(path, ".csv")) as beside:
            # With a mark by which a spreadsheet recognises UTF-8.
            self.table.to_csv(beside, index=False, encoding="utf-8-sig")
        return Path(path)


def score_submissions(
    submissions: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    rule: str = "same",
) -> Grades:
    """Score a folder with a folder for each student, each with a genotype for each announced seed.

    The interval is Student's over the seeds. Where an architecture is handed in for several seeds,
    it is widened by the noise of that architecture's score in the table, which these seeds share.

    Args:
        submissions: its folders are named after students; in each, or in the only folder in it,
            ``seed-2100.json`` and so forth. Files that begin with the student's name, as Moodle
            hands them out, do as well. Other files are ignored, nothing is run, no link is
            followed. Whoever has no genotypes is listed as not scored.
        folder: a project of :func:`~bmnas_core.course.project.make_variant` whose table was built;
            by default submissions are scored in the table that comes with the kit, for practice.
        rule: of the kit's table.

    Raises ProjectError for a folder that is no project, whose table is not finished or of another
    one, and for a folder without submissions.
    """
    handed_in = _handed_in(Path(submissions))
    benchmark, defaults = _reference(folder, rule)
    found = {student: _read(files, defaults, _space(benchmark)) for student, files in handed_in}
    makers = {"the default search": [*defaults.values()]}
    makers |= {name: own for name, own in found.items() if not isinstance(own, str)}
    noise, rows = benchmark.noise(top=len(benchmark) // 20), []
    for student, genotypes in found.items():
        row = {"student": _cell(student)}
        if isinstance(genotypes, str):
            row |= dict.fromkeys(("rank", "regret", "difference", "low", "high"), math.nan)
            rows.append(row | {"outcome": "not scored", "remarks": _cell(genotypes)})
            continue
        remarks = ["one architecture for all seeds"] if len(set(genotypes)) == 1 else []
        remarks += _alike(student, makers)
        row |= _scores(genotypes, [*defaults.values()], benchmark, noise)
        rows.append(row | {"remarks": _cell("; ".join(remarks))})
    table = pd.DataFrame(rows).sort_values(["difference", "student"], ignore_index=True)
    default = tuple(benchmark.regret(genotype) for genotype in defaults.values())
    return Grades(table, tuple(defaults), default)


def check_submission(
    folder: str | os.PathLike, project: str | os.PathLike | None = None, rule: str = "same"
) -> dict[int, Genotype]:
    """The genotypes of a submission, by announced seed, as the scorer will read them.

    Args:
        folder: what a student is about to hand in.
        project: the folder that students were given; by default the kit's own task.
        rule: of the kit's own task.

    Raises ProjectError, or GenotypeError, for the first file that cannot be scored.
    """
    if project is None:
        benchmark, defaults = _reference(None, rule)
        seeds, space = [*defaults], _space(benchmark)
    else:
        about = read_about(Path(project))
        if "features" not in about:
            raise ProjectError(project, "the lecturer's folder", "the one that students were given")
        operations = tuple(about["search"].get("operations", DEFAULT_OPERATIONS))
        space = Space(tuple(about["features"]), about["settings"]["M"], operations)
        seeds = about["seeds"]
    try:
        files = _files(Path(folder))
    except OSError as error:
        raise ProjectError(folder, in_line(error), "a readable folder") from None
    return {seed: _genotype(files, seed, space) for seed in seeds}


def _space(benchmark: TabularBenchmark) -> Space:
    recipe = benchmark.recipe
    return Space(tuple(recipe["features"]), recipe["config"]["M"], tuple(recipe["operations"]))


# --- what was handed in


def _handed_in(submissions: Path) -> list[tuple[str, dict[str, Path] | str]]:
    """Students by name: their files by name, or why there are none."""
    if not submissions.is_dir():
        raise ProjectError(submissions, "no folder", "a folder with a folder for each student")
    found: dict[str, dict[str, Path] | str] = {}
    folders: set[str] = set()
    for path in _inside(submissions):
        if _FILE.fullmatch(path.name):
            raise ProjectError(
                submissions, path.name, "the folder above, with one for each student"
            )
        if text := _ONLINE_TEXT.fullmatch(path.name):
            found.setdefault(printable(text[1]), {})
            continue
        folder = path.is_dir() and not path.is_symlink()
        named = _MOODLE.fullmatch(path.name) or (None if folder else _FLAT.fullmatch(path.name))
        name = printable(named[1] if named else path.name)
        if name in folders or (folder and found.get(name)):
            found[name] = "handed in twice; allowed: once"
            folders.add(name)
        elif folder:
            folders.add(name)
            try:
                found[name] = _files(path)
            except (OSError, ProjectError) as error:
                found[name] = in_line(error)
        elif named and not path.is_symlink():
            files = found.setdefault(name, {})
            if isinstance(files, dict):
                files[named[2]] = path
        else:
            what = "a link" if path.is_symlink() else "a file"
            found[name] = f"found {what}; allowed: a folder for each student{_unpack([path])}"
    if not found:
        raise ProjectError(submissions, "no folders", "one for each student")
    return [*found.items()]


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, in order, without what programs leave there."""
    paths = (path for path in folder.iterdir() if path.name not in LITTER)
    return sorted(path for path in paths if not path.name.startswith(".") or path.is_dir())


def _unpack(paths: Iterable[Path]) -> str:
    """What to do if one of these is an archive."""
    return "; unpack it" if any(_ARCHIVE.search(path.name) for path in paths) else ""


def _files(folder: Path) -> dict[str, Path]:
    """The files of a submission, by name: in this folder, or in the only one in it."""
    if not folder.is_dir() or folder.is_symlink():
        raise ProjectError(folder, "no folder", "the folder of a submission")
    inside = _inside(folder)
    for _ in range(5):  # what unpackers put around it
        below = [path for path in inside if path.is_dir() and not path.is_symlink()]
        below = [path for path in below if not path.name.startswith(".")]
        if len(below) > 1:
            below = [path for path in below if any(map(_is_genotype, path.iterdir()))]
        if len(below) != 1 or any(map(_is_genotype, inside)):
            break
        inside = _inside(below[0])
    return {path.name: path for path in inside}


def _is_genotype(path: Path) -> bool:
    return bool(_FILE.fullmatch(path.name)) and not path.is_dir()


def _read(
    files: dict[str, Path] | str, seeds: Sequence[int] | Mapping[int, Genotype], space: Space
) -> list[Genotype] | str:
    """The genotypes of a submission in canonical form, or what is wrong with it."""
    if isinstance(files, str):
        return files
    try:
        return [_genotype(files, seed, space).canonical() for seed in seeds]
    except BmnasError as error:
        return str(error)


def _genotype(files: Mapping[str, Path], seed: int, space: Space) -> Genotype:
    """The genotype for a seed, of a file of bounded size. Errors name the file."""
    name = file_name(seed)
    if name not in files:
        there = f"only {', '.join(sorted(map(printable, files)))}" if files else "nothing there"
        allowed = f"a file of this name{_unpack(files.values())}"
        raise ProjectError(name, shortened(there, 120), allowed)
    path = files[name]
    if path.is_symlink():
        raise ProjectError(name, "a link", "a file")
    try:
        text = text_of(path, MOST_BYTES)
    except UnicodeDecodeError:
        raise ProjectError(name, "no UTF-8", "text in UTF-8") from None
    except (OSError, ValueError) as error:
        allowed = f"a readable file of at most {MOST_BYTES:,} bytes"
        raise ProjectError(name, in_line(error), allowed) from None
    genotype = Genotype.from_json(text, name)
    space.require(genotype, name)
    return genotype


def _cell(text: str) -> str:
    """A text for a terminal and for a spreadsheet."""
    return _FORMULA.sub(r"\1\2'", shortened(printable(text), 300))


def _alike(student: str, makers: Mapping[str, Sequence[Genotype]]) -> list[str]:
    """Who else has at least half of a student's architectures, whatever their order."""
    own, equal, partly = Counter(makers[student]), [], []
    for name, theirs in makers.items():
        shared = (own & Counter(theirs)).total()
        if name != student and 2 * shared >= len(theirs):
            if shared == len(theirs):
                equal.append(name)
            else:
                partly.append(f"{name} ({shared} of {len(theirs)})")
    texts = []
    for words, names in (("the same as", equal), ("partly the same as", partly)):
        if names:
            more = f" and {len(names) - 3} others" if len(names) > 3 else ""
            texts.append(f"{words} {', '.join(shortened(name, 60) for name in names[:3])}{more}")
    return texts


# --- what it is worth


def _scores(
    genotypes: Sequence[Genotype],
    defaults: Sequence[Genotype],
    benchmark: TabularBenchmark,
    noise: float,
) -> dict:
    """Columns of a student's row. ``noise`` is the deviation of one network's score over seeds."""
    regrets, own = (
        np.array([benchmark.regret(genotype) for genotype in each])
        for each in (genotypes, defaults)
    )

    def variance(genotype: Genotype) -> float:
        return noise**2 / benchmark.look_up(genotype)["runs"]

    mean, _, low, high = t_interval(regrets - own)
    shared = hidden_variance([*zip(genotypes, defaults, strict=True)], variance)
    half = math.hypot((high - low) / 2, 1.96 * math.sqrt(shared))
    low, high = mean - half, mean + half
    return {
        "rank": float(np.mean([benchmark.rank(genotype) for genotype in genotypes])),
        "regret": float(regrets.mean()), "difference": mean, "low": low, "high": high,
        "outcome": "better" if high < 0 else "worse" if low > 0 else "level",
    }  # fmt: skip


def hidden_variance(pairs: Sequence[tuple], variance) -> float:
    """Variance of a mean difference that its spread over the pairs cannot show.

    Each value is known up to an error of its own, of ``variance(value)``. If all values differ, so
    do the errors, and the spread of the differences contains them. A value that returns brings the
    same error each time: the mean is off by it, and the spread does not tell.
    """
    n, counts = len(pairs), Counter()
    for one, other in pairs:
        counts[one] += 1
        counts[other] -= 1
    whole = sum(k**2 * variance(value) for value, k in counts.items()) / n**2
    each = sum(variance(one) + variance(other) for one, other in pairs if one != other)
    seen = (each - n * whole) / (n * (n - 1))  # expected of the squared standard error
    return max(0.0, whole - seen)


def _reference(folder, rule: str) -> tuple[TabularBenchmark, dict[int, Genotype]]:
    """The table, and what the default search found with each announced seed, in canonical form."""
    if folder is None:
        if rule not in RULES:
            raise ProjectError("rule", quoted(rule), " or ".join(RULES))
        found = read_benchmark(asset("results/digits_benchmark.csv"))
        found = found[(found["rule"] == rule) & (found["strategy"] == "default search")]
        known = found.set_index("seed")["genotype"]
        defaults = {seed: known[seed] for seed in PRACTICE_SEEDS[rule]}
        benchmark = TabularBenchmark("digits", rule)
    else:
        benchmark, lecturer = whole_table(folder), Path(folder) / LECTURER
        seeds = read_about(lecturer)["seeds"]
        defaults = {seed: Genotype.load(lecturer / "default" / file_name(seed)) for seed in seeds}
    return benchmark, {seed: genotype.canonical() for seed, genotype in defaults.items()}
