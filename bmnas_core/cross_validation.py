"""Cross-validation: an honest score where data are too few to spare one test split.

Each fold in turn is the test split, and the search is made anew on the others (Kohavi 1995).
"""

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .baselines import BASELINES, BaselineContext, BaselineError, compare
from .config import as_type
from .errors import check_type, quoted
from .experiments.results import writable_folder
from .features import FeatureBank, RawInputs
from .genotype import Genotype
from .locks import share_work
from .losses import metric_of
from .networks import count_parameters
from .progress import progress_bar
from .runtime import as_seed, resolve_device
from .search import SearchConfig
from .tasks.folds import Fold, all_samples, make_folds
from .tasks.task import Task, TaskError
from .tensor_files import read_tensors, write_tensors
from .train import TrainConfig, outputs_of

FORMAT = "bmnas-fold/2"
BM_NAS = "BM-NAS"
#: The score of each network on a fold.
SCORE_TYPES = {"network": str, "score": float, "params": int, "seconds": float}

_SHOWN = {"index": False, "na_rep": "", "float_format": "{:.4g}".format}


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """What :func:`cross_validate` found; it shows itself as its :attr:`table`.

    Attributes:
        task: the task.
        scores: a row for each ``repeat``, ``fold`` and ``network``: its ``score``, ``params`` and
            ``seconds``, of search and training.
        predictions: logits of BM-NAS for each sample, or of a regression its values in the labels'
            units, of the fold that tested it, (repeats, n, classes); NaN for a sample that cannot
            be read.
        labels: of the samples, (n,) or (n, classes).
        index: their items, (n, modalities). Samples are ordered by them, arrays' as their rows.
        tested_in: the fold that tested each sample, (repeats, n); -1 if it cannot be read.
        genotypes: of the folds, repeat by repeat.
    """

    task: Task
    scores: pd.DataFrame
    predictions: Tensor
    labels: Tensor
    index: Tensor
    tested_in: Tensor
    genotypes: tuple[Genotype, ...]

    @property
    def table(self) -> pd.DataFrame:
        """Each network over all folds, best first.

        ``mean`` and ``std`` are of its scores, ``low`` and ``high`` the 95 % interval of the mean
        (:func:`corrected_interval`), cut at the metric's limits. ``difference``,
        ``difference_low`` and ``difference_high`` are the same of its score less that of BM-NAS on
        the same fold. ``params`` and ``seconds`` are means.
        """
        keys = ["repeat", "fold"]
        wide = self.scores.pivot(index=keys, columns="network", values="score")
        costs = self.scores.groupby("network")[["params", "seconds"]].mean()
        rows = []
        for network, scores in wide.items():
            values, differences = scores.to_numpy(), (scores - wide[BM_NAS]).to_numpy()
            row = {"network": network, "mean": values.mean(), "std": values.std(ddof=1)}
            interval = corrected_interval(values, self.test_to_train)
            least, most = metric_of(self.task).limits
            row["low"] = interval[0] if least is None else max(interval[0], least)
            row["high"] = interval[1] if most is None else min(interval[1], most)
            if network != BM_NAS:
                interval = corrected_interval(differences, self.test_to_train)
                row |= {"difference": differences.mean(), "difference_low": interval[0]}
                row["difference_high"] = interval[1]
            rows.append(row | costs.loc[network].to_dict())
        ascending = metric_of(self.task).direction == "min"
        table = pd.DataFrame(rows).round({"params": 0}).astype({"params": int})
        return table.sort_values("mean", ascending=ascending, ignore_index=True)

    @property
    def test_to_train(self) -> float:
        """Samples of the test split for each one that is learned from, the mean over folds."""
        parts = [own[own >= 0].bincount() for own in self.tested_in]
        return float(torch.cat([part / (part.sum() - part) for part in parts]).mean())

    @property
    def _title(self) -> str:
        repeats, n = self.tested_in.shape
        times = f", {repeats} times" if repeats > 1 else ""
        folds = int(self.tested_in.max()) + 1
        return f"{self.task.name}: {self.task.metric} in {folds} folds of {n:,} samples{times}"

    def __repr__(self) -> str:
        return f"{self._title}\n{self.table.to_string(**_SHOWN)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._title)}</p>{self.table.to_html(**_SHOWN)}"


def cross_validate(
    task: Task,
    folds: int = 5,
    groups: object = None,
    repeats: int = 1,
    *,
    baselines: Iterable[str] | None = None,
    validation: float = 0.25,
    config: TrainConfig | None = None,
    search: SearchConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
    out: str | os.PathLike | None = None,
    progress: bool = True,
) -> CrossValidation:
    """Search, train and test BM-NAS and baselines on each fold of a task's samples.

    The samples of all three splits are cut into folds. Each in turn is the test split; the others
    are cut into train and validation, on which a search is made that never sees the fold. The
    network that it finds learns from both, as do the baselines, and is tested on the fold.

    Args:
        task: its backbones must not have learned from its samples.
        folds: how many; each class has at least as many samples.
        groups: (n,) whole numbers or texts, such as who speaks: no group is in two splits. In the
            order of ``CrossValidation.index``, for arrays that of their rows. By default the
            task's own, if it has any.
        repeats: how often all is done, with other folds and the next seed.
        baselines: names in :data:`~bmnas_core.baselines.BASELINES`; the quick ones by default.
        validation: share of the samples outside the fold that are validation.
        config, search: settings of training and search; fields that are None default to the
            task's.
        seed: fixes folds, searches and trainings.
        bank: the task's features; by default its shared bank in memory.
        out: a folder that keeps each fold as it ends. A run that was stopped goes on from there,
            and processes with one folder share the folds.

    Raises TaskError for folds that cannot be made (:func:`~bmnas_core.tasks.folds.make_folds`)
    and for folds in ``out`` of other data or settings; BaselineError for an unknown baseline.
    """
    repeats = as_type(repeats, int, "repeats", TaskError)
    if repeats < 1:
        raise TaskError("repeats", repeats, "1 or more")
    cut = partial(make_folds, task, folds, groups, validation=validation, seed=seed)
    cut()  # refuses what cannot be cut before features are computed
    if baselines is None:
        baselines = [name for name, baseline in BASELINES.items() if baseline.quick]
    names = as_type(baselines, tuple[str, ...], "baselines", TaskError)
    # Unknown ones are refused when they are looked up.
    names = list({name: BASELINES[name] for name in names if name != BM_NAS})
    config, search = TrainConfig.from_optional(config), SearchConfig.from_optional(search)
    context = BaselineContext(task, config, as_seed(seed), resolve_device(device), search)
    bank = FeatureBank.shared(task, context.config.L, context.device, bank)
    if out is not None:
        check_type(out, (str, os.PathLike), "out", TaskError, "the path of a folder")
        out = writable_folder(Path(out))
    readable = _readable(all_samples(task).index, bank)
    cuts = [fold for repeat in range(repeats) for fold in cut(repeat=repeat, readable=readable)]
    results: dict[tuple[int, int], _Result] = {}
    which = attrgetter("repeat", "number")

    def of_fold(fold: Fold) -> BaselineContext:
        own = {"seed": context.seed + fold.repeat, "bank": bank.with_splits(fold.task)}
        return replace(context, task=fold.task, **own)

    def missing(fold: Fold) -> bool:
        if which(fold) not in results and (path := _path(out, fold)).exists():
            results[which(fold)] = _read(path, fold, of_fold(fold), names)
        return which(fold) not in results

    def compute(fold: Fold) -> None:
        results[which(fold)] = found = _run(of_fold(fold), names)
        if out is not None:
            _write(_path(out, fold), found, of_fold(fold), names)

    if out is None:
        for fold in progress_bar(cuts, "folds", show=progress):
            compute(fold)
    else:
        share_work(out / "folds", cuts, missing, compute, "folds", key=which, show=progress)
    return _gathered(task, cuts, [results[which(fold)] for fold in cuts])


def corrected_interval(
    scores: np.ndarray, test_to_train: float, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of the mean of k scores, or differences, from folds and repeats.

    Folds learn from samples that they share, so their scores agree more than independent ones, and
    S / √k is too small for their standard error. It is S √(1/k + ``test_to_train``) here, where
    S is their standard deviation, and the quantile that of Student's t with k - 1 degrees of
    freedom (Nadeau and Bengio 2003; of repeated folds Bouckaert and Frank 2004).

    Args:
        scores: (k,), at least two.
        test_to_train: samples of a test split for each one that is learned from: 1/4 in 5 folds.
    """
    from scipy.stats import t

    k = len(scores)
    error = np.std(scores, ddof=1) * np.sqrt(1 / k + test_to_train)
    reach = t.ppf((1 + level) / 2, k - 1) * error
    return float(np.mean(scores) - reach), float(np.mean(scores) + reach)


def _readable(index: Tensor, bank: FeatureBank) -> Tensor:
    """Samples of which all items could be read, (n,) booleans."""
    skipped = [torch.tensor(list(items), dtype=index.dtype) for items in bank.skipped.values()]
    columns = zip(index.T, skipped, strict=True)
    return ~torch.stack([torch.isin(column, items) for column, items in columns]).any(0)


class _Result(NamedTuple):
    """What was found on one fold."""

    scores: list[dict]  # network, score, params and seconds, a row each
    genotype: Genotype
    predictions: Tensor  # (k, classes), of the test split


def _gathered(task: Task, cuts: list[Fold], results: list[_Result]) -> CrossValidation:
    """The results of all folds, each sample's in its place."""
    samples, repeats = all_samples(task), 1 + cuts[-1].repeat
    outputs = results[0].predictions.shape[1:]
    predictions = torch.full((repeats, len(samples), *outputs), torch.nan)
    tested_in, rows = torch.full((repeats, len(samples)), -1), []
    for fold, result in zip(cuts, results, strict=True):
        predictions[fold.repeat, fold.rows] = result.predictions
        tested_in[fold.repeat, fold.rows] = fold.number
        rows += [{"repeat": fold.repeat, "fold": fold.number, **row} for row in result.scores]
    return CrossValidation(
        task=task,
        scores=pd.DataFrame(rows),
        predictions=predictions,
        labels=samples.labels,
        index=samples.index,
        tested_in=tested_in,
        genotypes=tuple(result.genotype for result in results),
    )


def _path(out: Path, fold: Fold) -> Path:
    return out / f"repeat_{fold.repeat}_fold_{fold.number}.safetensors"


def _made_with(context: BaselineContext, names: list[str]) -> str:
    settings = context.config, context.search, context.task.search_config, context.task.scoring
    described = repr((context.bank.content_hash, *settings, context.seed, names))
    return hashlib.sha256(described.encode()).hexdigest()


def _write(path: Path, result: _Result, context: BaselineContext, names: list[str]) -> None:
    header = {"format": FORMAT, "made_with": _made_with(context, names), "scores": result.scores}
    header["genotype"] = result.genotype.to_json()
    write_tensors(path, {"predictions": result.predictions}, header)


def _read(path: Path, fold: Fold, context: BaselineContext, names: list[str]) -> _Result:
    """The result of a fold. Raises TaskError unless it was made with these data and settings."""

    def check(header: dict, described: dict[str, Tensor]) -> tuple[list[dict], Genotype]:
        if header.get("made_with") != _made_with(context, names):
            raise TaskError(
                "found a fold of other data or settings; allowed: an empty folder as out"
            )
        sizes = {name: len(tensor) for name, tensor in described.items()}
        if sizes != (allowed := {"predictions": len(fold.rows)}):
            raise TaskError("samples of tensors", quoted(sizes), allowed)
        for k, row in enumerate(as_type(header["scores"], list, "scores", TaskError)):
            for name, kind in SCORE_TYPES.items():
                as_type(row[name], kind, f"scores[{k}].{name}", TaskError)
        return header["scores"], Genotype.from_json(header["genotype"], "genotype")

    (scores, genotype), tensors = read_tensors(path, FORMAT, TaskError, "result of a fold", check)
    return _Result(scores, genotype, tensors["predictions"])


def _run(context: BaselineContext, names: list[str]) -> _Result:
    """BM-NAS and the named baselines on one fold."""
    task, bank, start = context.task, context.bank, time.perf_counter()
    genotype = context.searched()
    net = context.train(genotype)
    seconds, source = time.perf_counter() - start, bank
    if hasattr(net, "reads_inputs"):  # its backbones are finetuned
        source = RawInputs(task, device=context.device, modalities=net.reads_inputs)
    predictions, labels = outputs_of(net, task, source, "test")
    found = float(metric_of(task).score(predictions, labels))
    if task.targets is not None:
        predictions = task.targets.in_units(predictions)
    own = {"test": found, "params": count_parameters(net), "seconds": seconds}
    how = {"seed": context.seed, "device": context.device, "bank": bank, "progress": False}
    others = compare(task, names, config=context.config, search=context.search, **how)
    if BM_NAS in others:
        raise BaselineError(f"baselines: found label {BM_NAS!r} a second time")
    rows = [
        {"network": name, "score": entry["test"]} | {k: entry[k] for k in ("params", "seconds")}
        for name, entry in {BM_NAS: own, **others}.items()
    ]
    return _Result(rows, genotype, predictions)
