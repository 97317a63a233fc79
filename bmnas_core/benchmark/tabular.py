"""Tabular benchmark: every architecture of a small space, trained, to compare searches with.

Its models are NAS-Bench-101 (Ying et al. 2019) and NAS-Bench-201 (Dong and Yang 2020). The space is
all genotypes of one Cell with M steps that differ after
:meth:`~bmnas_core.genotype.Genotype.canonical`. Each is trained on train alone, by one recipe.
"""

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product, starmap
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import torch

from .. import genotype as grammar
from ..errors import BmnasError, check_type, quoted
from ..features import FeatureBank
from ..genotype import DEFAULT_OPERATIONS, OPERATIONS, CellGenotype, Genotype, StepGenotype
from ..networks import count_parameters
from ..progress import progress_bar
from ..runtime import as_seed, device_name, resolve_device
from ..storage import atomic_write
from ..tasks.files import asset
from ..tasks.task import Task, as_task, tensor_hash
from ..train import TrainConfig, cosine_ends, scores
from .ensemble import build_ensemble, fit_ensemble, shape_of

FORMAT = "bmnas-benchmark/2"
COLUMNS = ("genotype", "seed", "validation", "test", "curve", "parameters", "seconds", "device")
SPLITS = ("validation", "test")


class BenchmarkError(BmnasError):
    """A tabular benchmark that does not exist, is damaged, or lacks what is asked of it."""


class TabularBenchmark:
    """Mean scores, over several seeds, of every architecture of a task's space.

    Args:
        task: name of a task that has a table; that of ``"digits"`` comes with the kit.
        rule: of the task.
        path: another table to read, as :func:`tabulate` wrote it.

    Attributes:
        table: one row per architecture, best test score first: ``genotype`` (a
            :class:`Genotype`), ``validation``, ``test``, ``runs``, ``parameters``, ``seconds``.
        runs: one row per trained network, as :func:`tabulate` returns.
        recipe: the training's settings, the operations, and what identifies task and data.
        ends: epochs after which the learning rate is at its lowest, and the last epoch.

    Raises BenchmarkError if there is no such table, the file is not one, or an operation in it is
    not registered.
    """

    def __init__(
        self, task: str = "digits", rule: str = "sum", *, path: str | os.PathLike | None = None
    ):
        default = asset(f"{task}/benchmark_{rule}.parquet", missing_ok=True)
        self.path = Path(default if path is None else path)
        self.recipe, self.runs = _read(self.path)
        table = self.runs.groupby("genotype", sort=False).agg(
            validation=("validation", "mean"),
            test=("test", "mean"),
            runs=("seed", "size"),
            parameters=("parameters", "first"),
            seconds=("seconds", "mean"),
        )
        genotypes = [Genotype.from_json(text, str(self.path)) for text in table.index]
        table.insert(0, "genotype", genotypes)
        self.table = table.sort_values("test", ascending=False, kind="stable", ignore_index=True)
        self.ends = cosine_ends(TrainConfig.from_dict(self.recipe["config"]))
        self._curves = self.runs.set_index(["genotype", "seed"])["curve"].to_dict()
        self._row = {genotype: row for row, genotype in enumerate(self.table["genotype"])}

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return (
            f"TabularBenchmark of {self.recipe['task']!r}, rule {self.recipe['rule']!r}: "
            f"{len(self):,} architectures, {len(self.runs):,} networks trained; best test "
            f"{self.recipe['metric']} {self.table['test'].max():.4f}"
        )

    def look_up(self, genotype: Genotype) -> pd.Series:
        """The row of an architecture, in whatever form its genotype lists it.

        Raises BenchmarkError for one that is not in the table.
        """
        check_type(genotype, Genotype, "genotype", BenchmarkError)
        row = self._row.get(genotype.canonical())
        if row is None:
            raise BenchmarkError(
                f"genotype: found {len(genotype.cells)} Cells on {', '.join(genotype.features)}; "
                f"allowed: the {len(self):,} architectures of this table, one Cell with "
                f"{self.recipe['config']['M']} steps of {', '.join(self.recipe['operations'])} on "
                f"two of {', '.join(self.recipe['features'])}"
            )
        return self.table.loc[row]

    def score(self, genotype: Genotype, split: str = "test") -> float:
        """Mean score over all seeds, on ``"test"`` or ``"validation"``."""
        return float(self.look_up(genotype)[_as_split(split)])

    def rank(self, genotype: Genotype, split: str = "test") -> int:
        """Rank of an architecture by its mean score; 1 is the best."""
        score = self.score(genotype, split)
        return 1 + int((self.table[split] > score).sum())

    def percentile(self, genotype: Genotype, split: str = "test") -> float:
        """Rank in percent of all architectures; the top 1 % are at most 1.0."""
        return 100 * self.rank(genotype, split) / len(self)

    def regret(self, genotype: Genotype, split: str = "test") -> float:
        """By how many percentage points the best architecture's mean score is above this one's."""
        score = self.score(genotype, split)
        return 100 * float(self.table[split].max() - score)

    def simulated_score(self, genotype: Genotype, epochs: int, seed: int) -> float:
        """Validation score of an architecture's network after so many epochs, from the table.

        Raises BenchmarkError unless ``epochs`` is one of ``ends`` and the architecture was trained
        with ``seed``.
        """
        if epochs not in self.ends:
            raise BenchmarkError("epochs", repr(epochs), ", ".join(map(str, self.ends)))
        text = self.look_up(genotype)["genotype"].to_json()
        if (text, seed) not in self._curves:
            place = f"seed {seed}, {epochs} epochs"
            raise BenchmarkError(f"{place}: found no score of that architecture")
        return float(self._curves[text, seed][self.ends.index(epochs)])

    def best(self, split: str = "test") -> Genotype:
        """The architecture of the highest mean score."""
        return self.table["genotype"][int(self.table[_as_split(split)].argmax())]

    def kendall_tau(self, ratings: Mapping[Genotype, float], split: str = "test") -> float:
        """Kendall's τ between ratings of architectures, higher being better, and mean scores."""
        from scipy.stats import kendalltau

        scores = [self.score(genotype, split) for genotype in ratings]
        return float(kendalltau(list(ratings.values()), scores).statistic)

    def noise(self, split: str = "test", top: int | None = None) -> float:
        """Standard deviation over seeds of one network's score, in percentage points.

        It is pooled over all architectures, or over the ``top`` best.
        """
        wanted = [genotype.to_json() for genotype in self.table["genotype"][:top]]
        runs = self.runs[self.runs["genotype"].isin(wanted)]
        spread = runs.groupby("genotype")[_as_split(split)].var()
        return 100 * float(spread.mean()) ** 0.5


def enumerate_architectures(
    features: tuple[str, ...], M: int = 2, operations: tuple[str, ...] = DEFAULT_OPERATIONS
) -> list[Genotype]:
    """Every distinct genotype of one Cell with M steps, in canonical form.

    Those with the same steps follow each other. With six features, two steps and the four default
    operations there are 30 ordered pairs of features, each with 65 ways to fuse it: 1,950 in all.
    """
    inputs = [grammar.free_pairs(grammar.step_predecessors(j)) for j in range(M)]
    options = [list(starmap(StepGenotype, product(operations, pairs))) for pairs in inputs]
    cells = (CellGenotype(features[:2], steps) for steps in product(*options))
    found = {Genotype(features, (cell,)).canonical().cells[0].steps for cell in cells}
    return [
        Genotype(features, (CellGenotype(pair, steps),))
        for steps in sorted(found, key=repr)
        for pair in grammar.free_pairs(features)
    ]


def tabulate(
    task: Task,
    out: str | os.PathLike,
    seeds: Iterable[int] = (0, 1),
    *,
    operations: tuple[str, ...] = DEFAULT_OPERATIONS,
    device: str | torch.device = "auto",
    together: int = 1,
    top: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every architecture of a task's space and write the table, a Parquet file.

    Networks of one shape are trained together, for ``together`` seeds at once, and the table is
    written after each such ensemble. Networks that ``out`` has already are not trained again.

    Args:
        operations: of the steps; they may include your own registered ones.
        top: train only the ``top`` best architectures of ``out`` on validation and on test, to add
            seeds where architectures are hard to tell apart.

    Returns:
        One row per network: genotype (JSON), seed, validation and test score, curve (validation
        scores at the ends of the cosines of the learning rate), parameters, seconds (its share of
        its ensemble's) and device.

    Raises BenchmarkError if ``out`` is a table of another task, recipe, data or backbones, or with
    other operations.
    """
    device, out, rows = resolve_device(device), Path(out), []
    config = TrainConfig(data="train").with_defaults(as_task(task).config)
    bank, recipe = FeatureBank.shared(task, config.L, device), _recipe(task, config, operations)
    if out.exists():
        recipe_before, table = _read(out)
        if recipe_before != recipe:
            found = "a table of another task, recipe, data or backbones, or with other operations"
            raise BenchmarkError(out, found, "one of the same")
        rows = table.to_dict("records")
    if top is None:
        genotypes = enumerate_architectures(task.features, config.M, operations)
    else:
        table = TabularBenchmark(path=out).table
        best = pd.concat([table.nlargest(top, split)["genotype"] for split in SPLITS])
        genotypes = sorted(set(best), key=repr)
    shapes, ensembles = defaultdict(list), defaultdict(list)
    for genotype in genotypes:
        shapes[shape_of(genotype)].append(genotype)
    done = {(row["genotype"], row["seed"]) for row in rows}
    for (k, seed), alike in product(enumerate(map(as_seed, seeds)), shapes.values()):
        if missing := tuple(g for g in alike if (g.to_json(), seed) not in done):
            ensembles[k // together, missing].append(seed)
    for (_, genotypes), among in progress_bar(ensembles.items(), "architectures", show=progress):
        start, curves = time.perf_counter(), []
        ensemble = build_ensemble(genotypes, task, config, among)
        for record in fit_ensemble(ensemble, task, bank, config, among):
            if record["epoch"] in cosine_ends(config):
                curves.append(scores(ensemble, task, bank, "validation"))
        tests = scores(ensemble, task, bank, "test")
        cost = (time.perf_counter() - start) / len(tests), device_name(device)
        of_each = product(among, genotypes), ensemble.nets, tests, zip(*curves, strict=True)
        for (seed, genotype), net, test, curve in zip(*of_each, strict=True):
            row = genotype.to_json(), seed, curve[-1], test, curve, count_parameters(net), *cost
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        _write(out, recipe, rows)
    return pd.DataFrame(rows, columns=COLUMNS)


def _as_split(split: str) -> str:
    if split not in SPLITS:
        raise BenchmarkError("split", repr(split), ", ".join(SPLITS))
    return split


def _recipe(task: Task, config: TrainConfig, operations: tuple[str, ...]) -> dict:
    """What fixes the scores up to rounding, and is the same on every machine."""
    digest = hashlib.sha256()
    for modality in task.modalities:
        for name, tensor in modality.backbone.state_dict().items():
            digest.update(f"{modality.name} {name} {tensor_hash(tensor)}".encode())
    for name in ("train", *SPLITS):
        split = task.split(name)
        digest.update(f"{name} {tensor_hash(split.index)} {tensor_hash(split.labels)}".encode())
    return {
        "task": task.name,
        "rule": task.rule,
        "features": list(task.features),
        "metric": task.metric,
        "operations": list(operations),
        "config": config.to_dict(),
        "data": digest.hexdigest()[:32],
    }


def _write(path: Path, recipe: dict, rows: list[dict]) -> None:
    table = pyarrow.Table.from_pandas(pd.DataFrame(rows, columns=COLUMNS), preserve_index=False)
    header = json.dumps({"format": FORMAT, "recipe": recipe})
    table = table.replace_schema_metadata({"bmnas": header})
    with atomic_write(path) as beside:
        parquet.write_table(table, beside, compression="zstd")


def _read(path: Path) -> tuple[dict, pd.DataFrame]:
    """The recipe, and one row per network."""
    try:
        table = parquet.read_table(path)
        header = json.loads((table.schema.metadata or {}).get(b"bmnas", b"{}"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: found no tabular benchmark ({error})") from None
    if header.get("format") != FORMAT or table.column_names != list(COLUMNS):
        raise BenchmarkError(path, f"format {quoted(header.get('format'))}", repr(FORMAT))
    recipe = header["recipe"]
    if unknown := [op for op in recipe["operations"] if op not in OPERATIONS]:
        found = f"operation {unknown[0]!r}, which is not registered"
        raise BenchmarkError(path, found, OPERATIONS.names)
    # Settings that did not exist when the table was made have their defaults.
    recipe["config"] = TrainConfig.from_dict(recipe["config"]).to_dict()
    return recipe, table.to_pandas()
