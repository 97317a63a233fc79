"""Tabular benchmark: every architecture of a small space, trained, to compare searches with.

Its models are NAS-Bench-101 (Ying et al. 2019) and NAS-Bench-201 (Dong and Yang 2020). The space is
all genotypes of one Cell with M steps that differ after
:meth:`~bmnas_core.genotype.Genotype.canonical`. Each is trained on train alone, by one recipe.

Of a larger space, such as that of two Cells, a table has a random sample. Where an architecture
stands in the distribution of the sample's scores says where it stands in the space (Radosavovic et
al. 2019).
"""

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product, starmap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import torch
from torch import nn

from .. import genotype as grammar
from ..baselines.architectures import random_genotype
from ..config import ConfigError, as_type
from ..ensemble import FusionEnsemble, build_ensemble, fit_ensemble
from ..errors import BmnasError, check_type, in_line, quoted
from ..features import FeatureBank
from ..genotype import DEFAULT_OPERATIONS, OPERATIONS, CellGenotype, Genotype, StepGenotype
from ..locks import locked, share_work
from ..metrics import METRICS
from ..networks import count_parameters
from ..reading import parse_json, read_parquet
from ..runtime import as_seed, device_name, generator, resolve_device, seeded
from ..storage import TableError, atomic_write, check_cells, check_scores, file_version
from ..tasks.files import asset, cache_folder
from ..tasks.task import Task, as_task, load_task
from ..tensor_files import tensor_hash
from ..train import TrainConfig, cosine_ends, fit_by_epoch, fusion_network, score, scores

FORMAT = "bmnas-benchmark/2"
_CELLS = {
    "genotype": "text", "seed": "count", "validation": "number", "test": "number",
    "parameters": "count", "seconds": "seconds", "device": "name",
}  # fmt: skip
COLUMNS = ("genotype", "seed", "validation", "test", "curve", "parameters", "seconds", "device")
SPLITS = ("validation", "test")

#: Architectures whose networks are trained together; more are hardly faster.
NETWORKS_TOGETHER = 32


class BenchmarkError(BmnasError):
    """A tabular benchmark that does not exist, is damaged, or lacks what is asked of it."""


class Percentile(float):
    """How many percent of a space's architectures are at least as good; the top 1 % have up to 1.

    ``low`` and ``high`` are the ends of a 95 % interval (Wilson 1927), for what a sample says of
    its space. It does not cover the noise of the architecture's own score.
    """

    def __new__(cls, better: int, size: int, sampled: bool):
        found = super().__new__(cls, 100 * better / size)
        found.low = found.high = float(found)
        if sampled:
            from scipy.stats import binomtest

            ends = binomtest(better, size).proportion_ci(method="wilson")
            found.low, found.high = 100 * float(ends.low), 100 * float(ends.high)
        return found


class TabularBenchmark:
    """Mean scores, over several seeds, of every architecture of a task's space, or of a sample.

    Args:
        task: name of a task that has a table; those of ``"digits"`` come with the kit.
        rule: of the task.
        path: another table to read, as :func:`tabulate` wrote it.

    Attributes:
        sampled: whether it has a random sample of the space. Architectures that are not in it are
            then trained when they are looked up, by the same recipe and with the same seeds, and
            kept in the cache; the kit has those that its own searches found.
        metric: the :class:`~bmnas_core.metrics.Metric` of its scores.
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
        self.sampled, self.metric = self.recipe["sampled"], METRICS[self.recipe["metric"]]
        self._unit = 100 if self.metric.share else 1
        table, lower = _means(self.runs, self.path), self.metric.direction == "min"
        self.table = table.sort_values("test", ascending=lower, kind="stable", ignore_index=True)
        self.ends = cosine_ends(TrainConfig.from_dict(self.recipe["config"]))
        self._curves = self.runs.set_index(["genotype", "seed"])["curve"].to_dict()
        self._row = {genotype: row for row, genotype in enumerate(self.table["genotype"])}
        key = hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:16]
        self.found_path = cache_folder() / "benchmark" / f"{key}.parquet"
        self._found: dict[Genotype, pd.Series] = {}
        known = self.path.with_stem(f"{self.path.stem}_found")
        if self.sampled and known.exists():
            recipe, runs = _read(known)
            self._keep(runs if recipe == self.recipe else runs[:0])

    @classmethod
    def covering(
        cls, task: Task, N: int, M: int, operations: tuple[str, ...]
    ) -> "TabularBenchmark | None":
        """The kit's table of every architecture of this space, trained on this task; or None."""
        name = f"{task.name}/benchmark_{task.rule}.parquet"
        if not task.name.isidentifier() or not asset(name, missing_ok=True).is_file():
            return None
        table = cls(task.name, str(task.rule))
        whole = (N, M, tuple(operations), task.features) == table._space and not table.sampled
        ours = _recipe(as_task(task), TrainConfig(), operations, sampled=False)
        return table if whole and table.recipe["data"] == ours["data"] else None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return (
            f"TabularBenchmark of {self.recipe['task']!r}, rule {self.recipe['rule']!r}: "
            f"{len(self):,} architectures, {len(self.runs):,} networks trained; best test "
            f"{self.recipe['metric']} {self.table['test'].iloc[0]:.4f}"
        )

    def look_up(self, genotype: Genotype) -> pd.Series:
        """The row of an architecture, in whatever form its genotype lists it.

        Raises BenchmarkError for one that is not in the space.
        """
        check_type(genotype, Genotype, "genotype", BenchmarkError)
        canonical = genotype.canonical()
        row = self._row.get(canonical)
        if row is not None:
            return self.table.loc[row]
        N, M, operations, features = self._space
        steps = [step for cell in canonical.cells for step in cell.steps]
        known = genotype.features == features and {step.op for step in steps} <= set(operations)
        sizes = {len(cell.steps) for cell in canonical.cells}
        if not (self.sampled and known and len(canonical.cells) == N and sizes == {M}):
            cells = "one Cell" if N == 1 else f"{N} Cells"
            space = "its space" if self.sampled else f"the {len(self):,} architectures of it"
            raise BenchmarkError(
                f"genotype: found {len(genotype.cells)} Cells on {', '.join(genotype.features)}; "
                f"allowed: {space}, {cells} with {M} steps of {', '.join(operations)} on "
                f"{', '.join(features)}"
            )
        return self._train(canonical)

    @property
    def _space(self) -> tuple[int, int, tuple[str, ...], tuple[str, ...]]:
        """N and M, operations and features."""
        N, M = (self.recipe["config"][name] for name in ("N", "M"))
        return N, M, tuple(self.recipe["operations"]), tuple(self.recipe["features"])

    def _train(self, genotype: Genotype) -> pd.Series:
        """The row of an architecture outside the sample, from the cache, or trained now."""
        if genotype not in self._found:
            seeds = sorted(self.runs["seed"].unique().tolist())
            task = load_task(self.recipe["task"], rule=self.recipe["rule"])
            how = {"operations": tuple(self.recipe["operations"]), "progress": False}
            ours = _recipe(task, TrainConfig(), how["operations"], sampled=True)
            if ours["data"] != self.recipe["data"]:
                found = "an architecture outside its sample, and a task with other data"
                raise BenchmarkError(self.path, found, "those in it")
            self._keep(tabulate(task, self.found_path, seeds, genotypes=[genotype], **how))
        return self._found[genotype]

    def _keep(self, runs: pd.DataFrame) -> None:
        """Remember networks of architectures outside the sample."""
        rows = _means(runs, self.found_path).to_dict("records")
        self._found |= {row["genotype"]: pd.Series(row) for row in rows}

    def score(self, genotype: Genotype, split: str = "test") -> float:
        """Mean score over all seeds, on ``"test"`` or ``"validation"``."""
        return float(self.look_up(genotype)[_as_split(split)])

    def rank(self, genotype: Genotype, split: str = "test") -> int:
        """Rank of an architecture by its mean score; 1 is the best.

        Raises BenchmarkError for a sample, which says nothing of ranks.
        """
        if self.sampled:
            found = f"a sample of {len(self):,} architectures"
            raise BenchmarkError("rank", found, "a table of all; see percentile")
        return 1 + self._better(genotype, split)

    def percentile(self, genotype: Genotype, split: str = "test") -> Percentile:
        """Rank in percent of all architectures; the top 1 % are at most 1.0.

        Of a sample it is the share of architectures that are better, with its interval.
        """
        better = self._better(genotype, split) + (not self.sampled)
        return Percentile(better, len(self), self.sampled)

    def _better(self, genotype: Genotype, split: str) -> int:
        score, sign = self.score(genotype, split), self.metric.sign
        return int((sign * self.table[split] > sign * score).sum())

    def regret(self, genotype: Genotype, split: str = "test") -> float:
        """By how many percentage points this architecture's mean score is behind the best one's.

        A metric that is not from 0 to 1 has units of its own. The best of a sample may be behind.
        """
        score, best = self.score(genotype, split), self.metric.best(self.table[split])
        return self._unit * self.metric.sign * float(best - score)

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
        """The architecture of the best mean score."""
        scores = self.metric.sign * self.table[_as_split(split)]
        return self.table["genotype"][int(scores.argmax())]

    def kendall_tau(self, ratings: Mapping[Genotype, float], split: str = "test") -> float:
        """Kendall's τ between ratings of architectures, higher being better, and mean scores."""
        from scipy.stats import kendalltau

        scores = [self.metric.sign * self.score(genotype, split) for genotype in ratings]
        return float(kendalltau(list(ratings.values()), scores).statistic)

    def noise(self, split: str = "test", top: int | None = None) -> float:
        """Standard deviation over seeds of one network's score, in the unit of :meth:`regret`.

        It is pooled over all architectures, or over the ``top`` best.
        """
        wanted = [genotype.to_json() for genotype in self.table["genotype"][:top]]
        runs = self.runs[self.runs["genotype"].isin(wanted)]
        spread = runs.groupby("genotype")[_as_split(split)].var()
        return self._unit * float(spread.mean()) ** 0.5


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


def sample_architectures(
    features: tuple[str, ...],
    N: int,
    M: int,
    count: int,
    operations: tuple[str, ...] = DEFAULT_OPERATIONS,
) -> list[Genotype]:
    """The first ``count`` distinct architectures that random search would try, in canonical form.

    They are the same each time, and a larger sample begins with a smaller one. Raises
    BenchmarkError if the space has fewer.
    """
    random, found = generator(0, "sampled architectures"), {}
    for _ in range(100 * count):
        if len(found) == count:
            return list(found)
        found[random_genotype(features, N, M, random, operations).canonical()] = None
    raise BenchmarkError("sample", f"{count:,} architectures", f"about {len(found):,}, the space")


def tabulate(
    task: Task,
    out: str | os.PathLike,
    seeds: Iterable[int] = (0, 1),
    *,
    operations: tuple[str, ...] = DEFAULT_OPERATIONS,
    device: str | torch.device = "auto",
    together: int = 1,
    sample: int | None = None,
    top: int | None = None,
    genotypes: Iterable[Genotype] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every architecture of a task's space and write the table, a Parquet file.

    ``NETWORKS_TOGETHER`` architectures are trained together, for ``together`` seeds at once, and
    the table is written after each such ensemble. Networks that ``out`` has already are not trained
    again, and processes that write one file share the work.

    Args:
        operations: of the steps; they may include your own registered ones.
        sample: train so many random architectures, see :func:`sample_architectures`, in place of
            all. A space of several Cells is too large to train whole.
        top: train only the ``top`` best architectures of ``out`` on validation and on test, to add
            seeds where architectures are hard to tell apart.
        genotypes: train these instead, such as what a search found outside a sample.

    Returns:
        One row per network: genotype (JSON), seed, validation and test score, curve (validation
        scores at the ends of the cosines of the learning rate), parameters, seconds (its share of
        its ensemble's) and device.

    Raises BenchmarkError if ``out`` is a table of another task, recipe, data or backbones, or with
    other operations, and for a space of several Cells without ``sample``.
    """
    device, out = resolve_device(device), Path(out)
    if task.gaps:
        raise BenchmarkError(f"task {task.name!r}", "samples that lack modalities", "whole ones")
    config = TrainConfig(data="train").with_defaults(as_task(task).config)
    sampled = sample is not None or genotypes is not None
    if config.N > 1 and not (sampled or (out.exists() and top)):
        raise BenchmarkError("N", f"{config.N} Cells", "1, or a sample of architectures")
    bank = FeatureBank.shared(task, config.L, device)
    table = _Rows(out, _recipe(task, config, operations, sampled=sampled or config.N > 1))
    if genotypes is not None:
        genotypes = [genotype.canonical() for genotype in genotypes]
    elif sample is not None:
        space = task.features, config.N, config.M
        genotypes = sample_architectures(*space, sample, operations)
    elif top is None:
        genotypes = enumerate_architectures(task.features, config.M, operations)
    else:
        means = TabularBenchmark(path=out).table
        merit = means[[*SPLITS]] * METRICS[task.metric].sign
        best = pd.concat([means.loc[merit.nlargest(top, s).index, "genotype"] for s in SPLITS])
        genotypes = sorted(set(best), key=repr)
    parts, ensembles = range(0, len(genotypes), NETWORKS_TOGETHER), defaultdict(list)
    for (k, seed), start in product(enumerate(map(as_seed, seeds)), parts):
        some = genotypes[start : start + NETWORKS_TOGETHER]
        if lacking := tuple(g for g in some if not table.holds(g, seed)):
            ensembles[k // together, lacking].append(seed)

    def missing(ensemble: tuple[tuple[Genotype, ...], list[int]]) -> bool:
        return not all(starmap(table.holds, product(*ensemble)))

    def compute(ensemble: tuple[tuple[Genotype, ...], list[int]]) -> None:
        genotypes, among = ensemble
        start, curves = time.perf_counter(), []
        if len(genotypes) == len(among) == 1:  # alone it is faster without the ensemble's program
            with seeded(among[0], "initial weights"):
                trained = fusion_network(genotypes[0], task, config)
            how = {"seed": among[0], "validate": False}
            nets, records = (trained,), fit_by_epoch(trained, task, bank, config, **how)
        else:
            trained = build_ensemble(genotypes, task, config, among)
            nets, records = trained.nets, fit_ensemble(trained, task, bank, config, among)
        for record in records:
            if record["epoch"] in cosine_ends(config):
                curves.append(_scores(trained, task, bank, "validation"))
        tests = _scores(trained, task, bank, "test")
        cost = (time.perf_counter() - start) / len(tests), device_name(device)
        of_each = product(among, genotypes), nets, tests, zip(*curves, strict=True)
        rows = [
            (genotype.to_json(), seed, curve[-1], test, curve, count_parameters(net), *cost)
            for (seed, genotype), net, test, curve in zip(*of_each, strict=True)
        ]
        table.add(dict(zip(COLUMNS, row, strict=True)) for row in rows)

    work = [(genotypes, among) for (_, genotypes), among in ensembles.items()]
    share_work(out, work, missing, compute, "architectures", show=progress)
    return pd.DataFrame(table.rows, columns=COLUMNS)


class _Rows:
    """The rows of a table's file, a dict for each network; other processes may add to it.

    Raises BenchmarkError if the file is of another recipe.
    """

    def __init__(self, path: Path, recipe: dict):
        self.path, self.recipe, self.rows = path, recipe, []
        self._there: set[tuple[str, int]] = set()
        self._read: tuple | None = None
        self._refresh()

    def holds(self, genotype: Genotype, seed: int) -> bool:
        self._refresh()
        return (genotype.to_json(), seed) in self._there

    def add(self, rows: Iterable[dict]) -> None:
        """Write these networks' rows too, but for those that the file has by now."""
        with locked(self.path, wait=None):
            self._refresh()
            self._keep([row for row in rows if _network(row) not in self._there])
            _write(self.path, self.recipe, self.rows)
            self._read = file_version(self.path)

    def _refresh(self) -> None:
        """Read the file if it is not as it was when it was last read or written."""
        if (version := file_version(self.path)) not in (None, self._read):
            recipe, table = _read(self.path)
            if recipe != self.recipe:
                others = "task, recipe, data or backbones, or with other operations"
                raise BenchmarkError(self.path, f"a table of another {others}", "one of the same")
            self.rows, self._read = [], version
            self._keep(table.to_dict("records"))

    def _keep(self, rows: list[dict]) -> None:
        self.rows += rows
        self._there.update(map(_network, rows))


def _network(row: dict) -> tuple[str, int]:
    return row["genotype"], row["seed"]


def _scores(trained: nn.Module, task: Task, bank: FeatureBank, split: str) -> list[float]:
    """The scores of an ensemble's networks, or of a network alone."""
    if isinstance(trained, FusionEnsemble):
        return scores(trained, task, bank, split)
    return [score(trained, task, bank, split)]


def _as_split(split: str) -> str:
    if split not in SPLITS:
        raise BenchmarkError("split", repr(split), ", ".join(SPLITS))
    return split


def _means(runs: pd.DataFrame, path: Path) -> pd.DataFrame:
    """One row per architecture: means over its seeds."""
    table = runs.groupby("genotype", sort=False).agg(
        validation=("validation", "mean"),
        test=("test", "mean"),
        runs=("seed", "size"),
        parameters=("parameters", "first"),
        seconds=("seconds", "mean"),
    )
    genotypes = [Genotype.from_json(text, str(path)) for text in table.index]
    table.insert(0, "genotype", genotypes)
    return table


def data_hash(task: Task) -> str:
    """Of a task's frozen backbones, and of the samples and labels in its splits."""
    digest = hashlib.sha256()
    for modality in task.modalities:
        for name, tensor in modality.backbone.state_dict().items():
            digest.update(f"{modality.name} {name} {tensor_hash(tensor)}".encode())
    for name in ("train", *SPLITS):
        split = task.split(name)
        digest.update(f"{name} {tensor_hash(split.index)} {tensor_hash(split.labels)}".encode())
    return digest.hexdigest()[:32]


def _recipe(task: Task, config: TrainConfig, operations: tuple[str, ...], *, sampled: bool) -> dict:
    """What fixes the scores up to rounding, and is the same on every machine."""
    return {
        "task": task.name,
        "rule": task.rule,
        "features": list(task.features),
        **task.scoring,
        "operations": list(operations),
        "sampled": sampled,
        "config": config.to_dict(),
        "data": data_hash(task),
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
        table = read_parquet(path)
        text = (table.schema.metadata or {}).get(b"bmnas", b"{}").decode()
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: found no tabular benchmark ({in_line(error)})") from None
    header = check_type(parse_json(text, BenchmarkError, path), dict, path, BenchmarkError)
    if header.get("format") != FORMAT or table.column_names != list(COLUMNS):
        raise BenchmarkError(path, f"format {quoted(header.get('format'))}", repr(FORMAT))
    kinds = {"operations": tuple[str, ...], "config": dict, "metric": str, "task": str}
    kinds |= {"rule": str | None, "features": tuple[str, ...] | None, "sampled": bool | None}
    recipe = as_type(header.get("recipe"), dict, f"{path}: recipe", BenchmarkError)
    for name, kind in kinds.items():
        as_type(recipe.get(name), kind, f"{path}: recipe.{name}", BenchmarkError)
    if unknown := [op for op in recipe["operations"] if op not in OPERATIONS]:
        found = f"operation {unknown[0]!r}, which is not registered"
        raise BenchmarkError(path, found, OPERATIONS.names)
    # What did not exist when the table was made has its default.
    recipe.setdefault("sampled", False)
    if recipe["metric"] not in METRICS:
        raise BenchmarkError(f"{path}: recipe.metric", quoted(recipe["metric"]), METRICS.names)
    try:
        config = TrainConfig.from_dict(recipe["config"])
    except ConfigError as error:
        raise BenchmarkError(f"{path}: recipe.config: {error}") from None
    for name in ("epochs", "restart"):
        if not getattr(config, name):
            raise BenchmarkError(f"{path}: recipe.config.{name}", "nothing", "a number")
    recipe["config"] = config.to_dict()
    return recipe, _checked(path, recipe, table.to_pandas())


def _checked(path: Path, recipe: dict, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table. Raises BenchmarkError for values that no network has."""
    try:
        check_cells(path, runs, _CELLS)
        for name in SPLITS:
            check_scores(path, runs[name], name, recipe["metric"])
        ends = runs["curve"].map(len) if len(runs) else pd.Series([0])
        curves = np.concatenate([*runs["curve"], np.zeros(0)]).astype(float)
        check_scores(path, curves, "curve", recipe["metric"])
    except TableError as error:
        raise BenchmarkError(str(error)) from None
    except (TypeError, ValueError) as error:
        raise BenchmarkError(f"{path}: curve", in_line(error), "scores after each epoch") from None
    if not len(runs):
        raise BenchmarkError(path, "no rows", "one for each network")
    if ends.nunique() > 1 or not np.isfinite(curves).all():
        raise BenchmarkError(f"{path}: curve", "others", "as many finite scores in each row")
    after = cosine_ends(TrainConfig.from_dict(recipe["config"]))
    if ends.iloc[0] != len(after):
        allowed = f"{len(after)}, after epochs {quoted(after)}"
        raise BenchmarkError(f"{path}: curve", f"{ends.iloc[0]} scores", allowed)
    twice = runs.duplicated(["genotype", "seed"])
    if twice.any():
        row = int(twice.to_numpy().argmax()) + 1
        raise BenchmarkError(f"{path}: row {row}", "a genotype and seed twice", "each once")
    return runs
