"""The steps that notebooks 10 to 12 share, from backbones to the result; notebook 10 explains them.

Each calls the kit as a notebook would, and returns what the notebook shows.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..backbones.paper import save_checkpoint
from ..baselines import compare
from ..config import Settings
from ..experiments import save_run
from ..features import FeatureBank, RawInputs
from ..genotype import OPERATIONS, CellGenotype, Genotype, StepGenotype, cell_name, step_name
from ..networks import FusionNetwork, count_parameters, pool
from ..progress import progress_bar
from ..search import Search, SearchConfig
from ..tasks.task import Task
from ..train import TrainConfig, evaluate, outputs_of, train, train_backbone

LEARNED = "learned by BM-NAS"


def tapped_features(task: Task) -> pd.DataFrame:
    """A row for each feature: its shape in the backbone, and (C_i, L) after pooling."""
    rows = []
    for modality in task.modalities:
        first = modality.inputs[task.items("train", modality.name)[:1]]
        with torch.no_grad():
            outputs = modality.backbone(first)
        for feature, output in zip(modality.channels, outputs, strict=True):
            pooled = pool(output, task.config.L, modality.pooling)
            rows.append((feature, tuple(output.shape[1:]), tuple(pooled.shape[1:])))
    return pd.DataFrame(rows, columns=["feature", "in the backbone", "pooled to (C_i, L)"])


def train_backbones(
    task: Task,
    config: TrainConfig | None = None,
    *,
    out: Path | str,
    given: Collection[str] = (),
    seed: int = 0,
    device: str = "auto",
) -> dict[str, dict]:
    """Train the backbone of each modality alone, on the training split; ``given`` ones stay.

    Weights are written to ``out`` as ``<modality>.safetensors``. Returns by modality the trained
    ``network``, its ``params``, ``scores`` on validation, one an epoch, and ``seconds``.
    """
    found = {}
    for modality in task.modalities:
        if modality.name in given:
            continue
        start = time.perf_counter()
        network, records = train_backbone(task, modality.name, config, seed=seed, device=device)
        seconds = time.perf_counter() - start
        save_checkpoint(modality.backbone, Path(out) / f"{modality.name}.safetensors")
        scores = [record["validation_score"] for record in records]
        found[modality.name] = {
            "network": network,
            "params": count_parameters(network),
            "scores": scores,
            "seconds": seconds,
        }
        print(
            f"{modality.name}: {count_parameters(network):,} parameters, {len(scores)} epochs in "
            f"{seconds:.0f} s, validation {task.metric} {scores[-1]:.3f}"
        )
    return found


def extract_features(
    task: Task, folder: Path | str, *, device: str = "auto"
) -> tuple[FeatureBank, float]:
    """Run all items through the frozen backbones: the bank in ``folder``, and the seconds."""
    start = time.perf_counter()
    bank = FeatureBank(task, folder=folder, device=device)
    seconds = time.perf_counter() - start
    items = {modality.name: len(modality.inputs) for modality in task.modalities}
    values = {
        modality.name: sum(c * length for c, length in map(bank.shapes.get, modality.channels))
        for modality in task.modalities
    }
    size = sum(2 * items[name] * values[name] for name in items)
    print(f"{items}: {size / 1e6:.1f} MB on disk, extracted in {seconds:.0f} s")
    print("left out:", {name: len(found) for name, found in bank.skipped.items()})
    return bank, seconds


def run_search(
    task: Task, config: SearchConfig, *, seed: int = 0, device: str = "auto", bank: FeatureBank
) -> tuple[Search, float]:
    """Run a search to its end: the search, and the seconds that it took."""
    search = Search(task, config, seed=seed, device=device, bank=bank)
    start = time.perf_counter()
    states = list(progress_bar(search, "search"))
    seconds = time.perf_counter() - start
    updates = [state for state in states if state.phase != "selection"]
    print(
        f"{len(updates)} updates and {len(states) - len(updates)} steps of selection: "
        f"{seconds:.0f} s; validation {task.metric} {search.best_score:.3f}"
    )
    return search, seconds


# --- what a genotype computes


def multiples(steps: Iterable[StepGenotype]) -> dict[str, tuple[int, int] | None]:
    """How many times each of X, Y, S1, … contains X and Y; None unless it is a Sum of them."""
    found: dict[str, tuple[int, int] | None] = {"X": (1, 0), "Y": (0, 1)}
    for j, step in enumerate(steps):
        parts = [found[name] for name in step.inputs]
        known = step.op == "sum" and None not in parts
        found[step_name(j)] = tuple(map(sum, zip(*parts, strict=True))) if known else None
    return found


def describe_cells(genotype: Genotype, task: Task) -> pd.DataFrame:
    """A row for each Cell: its inputs, the modalities that it joins, and its steps.

    A Sum of X and Y alone is also written as multiples of them, such as ``2X + Y``.
    """
    order = [modality.name for modality in task.modalities]
    source = {name: {own.name} for own in task.modalities for name in own.channels}
    rows = {}
    for i, cell in enumerate(genotype.cells):
        joined = set.union(*(source[name] for name in cell.inputs))
        source[cell_name(i)] = joined
        rows[f"Cell {i + 1}"] = {
            "X": cell.inputs[0],
            "Y": cell.inputs[1],
            "joins": " and ".join(name for name in order if name in joined),
            **_written(cell),
        }
    return pd.DataFrame(rows).T


def _written(cell: CellGenotype) -> dict[str, str]:
    """Each step of a Cell as a formula."""
    known, found = multiples(cell.steps), {}
    for j, step in enumerate(cell.steps):
        text = f"{OPERATIONS[step.op].label}({', '.join(step.inputs)})"
        if parts := known[step_name(j)]:
            terms = zip(parts, "XY", strict=True)
            text += " = " + " + ".join(f"{n if n > 1 else ''}{name}" for n, name in terms if n)
        found[step_name(j)] = text
    return found


def genotype_of(features: tuple[str, ...], *cells: tuple) -> Genotype:
    """A genotype from Cells written as (X, Y, step, …), each step as (operation, input, input)."""
    return Genotype(
        features,
        tuple(
            CellGenotype((x, y), tuple(StepGenotype(op, (a, b)) for op, a, b in steps))
            for x, y, *steps in cells
        ),
    )


# --- training


@dataclass(frozen=True)
class Comparison:
    """A learned network and its baselines, each tested once.

    Attributes:
        net: the trained fusion network.
        test: its score.
        seconds: of its training.
        baselines: as :func:`bmnas_core.baselines.compare` returns them.
        table: a row for each network: ``test``, ``params``, ``seconds``; best first.
    """

    net: nn.Module
    test: float
    seconds: float
    baselines: dict[str, dict]
    table: pd.DataFrame


def train_and_compare(
    genotype: Genotype,
    task: Task,
    config: TrainConfig,
    backbones: Mapping[str, Mapping],
    search_seconds: float,
    *,
    seed: int = 0,
    device: str = "auto",
    bank: FeatureBank,
) -> Comparison:
    """Train the network of a genotype and its baselines on frozen features, and test each once.

    ``backbones`` are those of :func:`train_backbones`.
    """
    start = time.perf_counter()
    net, _ = train(genotype, task, config, seed=seed, device=device, bank=bank)
    seconds = time.perf_counter() - start
    baselines = compare(task, config=config, seed=seed, device=device, bank=bank)
    test = evaluate(net, task, "test", bank=bank)
    learned = {"test": test, "params": count_parameters(net), "seconds": search_seconds + seconds}
    alone = {
        f"{name}'s backbone itself": {
            "test": evaluate(one["network"], task, "test"),
            "params": one["params"],
            "seconds": one["seconds"],
        }
        for name, one in backbones.items()
    }
    table = pd.DataFrame({LEARNED: learned, **baselines, **alone}).T
    table = table.sort_values("test", ascending=False)[["test", "params", "seconds"]].astype(float)
    return Comparison(net, test, seconds, baselines, table)


def predictions(net: nn.Module, task: Task, split: str, bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) and labels of a split, of a fusion network or of a backbone alone."""
    source = bank
    if modalities := getattr(net, "reads_inputs", None):
        device = next(net.parameters()).device
        source = RawInputs(task, device=device, modalities=modalities)
    return outputs_of(net, task, source, split)


def parts_right(
    networks: Mapping[str, nn.Module],
    task: Task,
    split: str,
    bank: FeatureBank,
    parts: Mapping[int, tuple[str, ...]],
    names: tuple[str, ...],
) -> pd.DataFrame:
    """Share of samples for which each network predicts each part of the class, and the whole class.

    ``parts``: class → its parts, which are called ``names``. A class without parts has none right.
    """
    rows, nothing = {}, (None,) * len(names)
    for name, net in networks.items():
        logits, labels = predictions(net, task, split, bank)
        pairs = zip(logits.argmax(1).tolist(), labels.tolist(), strict=True)
        right = [
            [
                *(a == b for a, b in zip(parts.get(k, nothing), parts[label], strict=True)),
                k == label,
            ]
            for k, label in pairs
        ]
        rows[name] = pd.DataFrame(right, columns=[*names, "all"]).mean()
    return pd.DataFrame(rows).T


def fine_tune(
    genotype: Genotype,
    task: Task,
    net: nn.Module,
    epochs: int,
    from_scratch: bool = False,
    micro_batch: int = 16,
    *,
    seed: int = 0,
    device: str = "auto",
) -> dict | None:
    """Train backbones and fusion network together on raw inputs: its test score, params, seconds.

    It goes on from ``net`` at a lower learning rate, or with ``from_scratch`` from random weights.
    None for 0 epochs.
    """
    if not epochs:
        return None
    gentle = {} if from_scratch else {"max_lr": 3e-4, "restart": epochs}
    config = TrainConfig(finetune=True, epochs=epochs, micro_batch=micro_batch, **gentle)
    start = time.perf_counter()
    begin = None if from_scratch else net
    together, _ = train(genotype, task, config, seed=seed, device=device, start=begin)
    found = {
        "test": evaluate(together, task, "test"),
        "params": count_parameters(together),
        "seconds": time.perf_counter() - start,
    }
    print(
        f"{found['params']:,} parameters trained together, {epochs} epochs in "
        f"{found['seconds']:.0f} s: {task.metric} on test {found['test']:.3f}"
    )
    return found


# --- the paper's sizes


def full_size_channels(backbones: Mapping[str, Callable[[], Backbone]]) -> dict[str, int]:
    """Feature name → channels of full-size backbones, made as shapes without numbers."""
    with torch.device("meta"):
        made = {name: build() for name, build in backbones.items()}
    return {f"{name}_{i + 1}": c for name, net in made.items() for i, c in enumerate(net.channels)}


def count_parameters_at(
    config: Settings, channels: Mapping[str, int], classes: int, genotypes: Mapping[str, Genotype]
) -> pd.DataFrame:
    """Parameters of the fusion network of each genotype at a config's C and L, part by part."""
    rows = {}
    for name, genotype in genotypes.items():
        with torch.device("meta"):
            net = FusionNetwork(genotype, dict(channels), classes, C=config.C, L=config.L)
        parts = {
            "reshape layers": net.reshape,
            "Cells": net.cells,
            "classifier": net.classifier,
            "all": net,
        }
        rows[name] = {part: count_parameters(module) for part, module in parts.items()}
    return pd.DataFrame(rows).T


# --- the result


def save(
    out: Path | str,
    task: Task,
    search: Search,
    compared: Comparison,
    backbones: Mapping[str, Mapping],
    finetuned: dict | None,
    seed: int,
    search_seconds: float,
    bank_seconds: float,
) -> Path:
    """Write the run's result and genotype to ``out`` by :func:`bmnas_core.save_run`."""
    protocol = {"protocol": task.protocol} if task.protocol else {}
    result = {
        "task": task.name,
        "rule": task.rule,
        **protocol,
        "seed": seed,
        "device": str(search.device),
        "metric": task.metric,
        "test": compared.test,
        "params": count_parameters(compared.net),
        "search_seconds": search_seconds,
        "train_seconds": compared.seconds,
        "baselines": compared.baselines,
        "backbone_seconds": {name: one["seconds"] for name, one in backbones.items()},
        "bank_seconds": bank_seconds,
        "finetuned": finetuned,
    }
    return save_run(out, result=result, genotype=search.best_genotype, bank=search.bank)
