"""A task small enough to search in a second: any number of modalities, no files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bmnas_core import FeatureBank
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.tasks import DataError, FileInputs, Modality, Split, Task
from bmnas_core.tasks.inputs import files_version

SIZES = {"train": 48, "validation": 24, "test": 24}
SETTINGS = Settings(
    C=8, L=4, N=2, M=2, epochs=2, batch_size=16, dropout=0.1, max_lr=1e-2, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip


class TinyBackbone(nn.Module):
    """``(N, 4, 6)`` → one feature for each entry of ``channels``, all of length 6.

    With ``embedding`` the last one is a vector, (N, C).
    """

    def __init__(self, channels: tuple[int, ...], seed: int = 0, *, embedding: bool = False):
        super().__init__()
        self.embedding = embedding
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(nn.Conv1d(4, c, 1) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [layer(x).relu() for layer in self.layers]
        if self.embedding:
            features[-1] = features[-1].mean(2)
        return features


class TinyClassifier(TinyBackbone):
    """The same with its own classifier, as the paper's backbones have."""

    def __init__(self, channels: tuple[int, ...], seed: int = 0, classes: int = 3):
        super().__init__(channels, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fc = nn.Linear(channels[-1], classes)

    def classify(self, features: list[Tensor]) -> Tensor:
        return self.fc(features[-1].mean(2))


def tiny_task(
    names: tuple[str, ...] = ("Image", "Audio"),
    channels: tuple[int, ...] = (5, 6),
    *,
    classes: int = 3,
    metric: str = "accuracy",
    settings: Settings = SETTINGS,
    embedding: bool = False,
) -> Task:
    """Item i of every modality belongs to sample i and shows its label in noise."""
    random = torch.Generator().manual_seed(0)
    n = sum(SIZES.values())
    labels = torch.randint(classes, (n,), generator=random)
    prototypes = torch.randn(classes, 4, 6, generator=random)
    modalities = tuple(
        Modality(
            name,
            TinyBackbone(channels, seed=m, embedding=embedding),
            {f"{name}_{i + 1}": c for i, c in enumerate(channels)},
            prototypes[labels] + torch.randn(n, 4, 6, generator=random),
            pooling="time",
            classes=labels,
        )
        for m, name in enumerate(names)
    )
    if metric == "weighted_f1":
        labels = nn.functional.one_hot(labels, classes)
    splits, start = {}, 0
    for split, size in SIZES.items():
        rows = torch.arange(start, start + size)
        splits[split] = Split(split, rows[:, None].expand(-1, len(names)), labels[rows])
        start += size
    search = SearchSettings(selection="argmax")
    return Task("tiny", "same", classes, metric, modalities, splits, settings, search)


@dataclass(frozen=True)
class ReadNpy:
    """Inputs from ``folder/{item}.npy``; augmented by noise."""

    folder: Path

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        path = self.folder / f"{item}.npy"
        try:
            values = torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
        return values if random is None else values + torch.randn(values.shape, generator=random)


def in_files(task: Task, folder: Path) -> Task:
    """The same task with one file for each input, and backbones that can classify."""
    modalities = []
    for m, modality in enumerate(task.modalities):
        place = folder / modality.name
        if not place.is_dir():
            place.mkdir(parents=True)
            for item, values in enumerate(modality.inputs):
                np.save(place / f"{item}.npy", values.numpy())
        paths = [place / f"{item}.npy" for item in range(len(modality.inputs))]
        inputs = FileInputs(tuple(map(str, paths)), ReadNpy(place), files_version(paths))
        backbone = TinyClassifier(tuple(modality.channels.values()), m, task.classes)
        modalities.append(replace(modality, inputs=inputs, backbone=backbone))
    return replace(task, modalities=tuple(modalities))


def recording_bank(task: Task) -> tuple[FeatureBank, list[tuple[str, Tensor]]]:
    """A bank, and a list of the splits and rows that have been read from it."""
    bank = FeatureBank(task)
    read, batch = [], bank.batch

    def recorded(split, rows, next_rows=None):
        read.append((split, rows))
        return batch(split, rows, next_rows)

    bank.batch = recorded
    return bank, read
