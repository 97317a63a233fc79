"""Exercises of notebook 09, your own task."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...tasks import Task
from ..checks import exercise
from . import answers

SPLITS = ("train", "validation", "test")
CLASSES = ("left", "opposite", "right", "same")


def arrays(n: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Video (n, 6), audio (n, 5) and labels (n,) that mean nothing."""
    random = np.random.default_rng(n)
    return random.normal(size=(n, 6)), random.normal(size=(n, 5)), np.arange(n) % 4


def rows_of(answer: object, labels: np.ndarray) -> dict[str, Tensor] | str:
    """Split → the modalities' rows (samples, 2) in a task of all samples; or what is wrong."""
    if wrong := answers.instance(answer, Task):
        return wrong
    if len(answer.modalities) != 2:
        return f"The task has {len(answer.modalities)} modalities, and not two."
    rows = {name: answer.split(name).index for name in SPLITS}
    used = torch.cat([own.max(1).values for own in rows.values()])
    if sorted(used.tolist()) != list(range(len(labels))):
        return f"The task has {len(used.unique())} different samples, and not {len(labels)}."
    classes = torch.cat([answer.split(name).labels for name in SPLITS])
    if not torch.equal(classes, torch.from_numpy(labels)[used]):
        return "The labels of the task are not those that it was given."
    return rows


@exercise(
    "09.1",
    "A split by fractions that knows nothing of speakers deals samples out one by one.",
    "The table in section 1 has a row about speakers, patients and films.",
)
def speakers_apart(answer):
    if wrong := answers.called(answer):
        return wrong
    video, audio, labels = arrays()
    speakers = np.random.default_rng(1).integers(40, size=len(labels))
    rows = rows_of(answer(video, audio, labels, speakers), labels)
    if isinstance(rows, str):
        return rows
    found = [set(speakers[own.max(1).values.numpy()].tolist()) for own in rows.values()]
    several = len(found[0] & found[1] | found[0] & found[2] | found[1] & found[2])
    return f"{several} of 40 speakers are in more than one split." if several else None


@exercise(
    "09.2",
    "Validation and test must not shape what the network reads. So their rows may not enter the "
    "mean and the deviation, but they are shifted and divided as well.",
    "`x[train]` holds the rows of train, and `.mean(0)` takes the mean of each column.",
)
def standardised(answer):
    cases = []
    for n, c in ((40, 3), (25, 6)):
        x = torch.randn(n, c) * torch.logspace(-1, 2, c) + torch.arange(c) * 10
        cases.append((x, torch.rand(n) < 0.6))
    return answers.function(
        answer, lambda x, train: (x - x[train].mean(0)) / x[train].std(0), cases, 1e-3
    )


def sure_names(table: pd.DataFrame, least: float) -> list[str]:
    """Class of each row, or "unsure" if its probability is below ``least``."""
    best = zip(table.idxmax(axis=1), table.max(axis=1), strict=True)
    return [name if odds >= least else "unsure" for name, odds in best]


@exercise(
    "09.3",
    "A row has a probability for each class. You need the largest of them, and its column.",
    "Of a DataFrame, `.max(axis=1)` is the largest value of each row, and `.idxmax(axis=1)` the "
    "column that it is in.",
)
def class_names(answer):
    if wrong := answers.called(answer):
        return wrong
    for n, least in ((12, 0.5), (30, 0.7), (5, 0.0)):
        odds = torch.softmax(2 * torch.randn(n, len(CLASSES)), dim=1).numpy()
        table = pd.DataFrame(odds, columns=CLASSES)
        found, wanted = answer(table.copy(), least), sure_names(table, least)
        found = found.tolist() if isinstance(found, (np.ndarray, pd.Series)) else found
        if not isinstance(found, list) or len(found) != n:
            return f"A list of {n} names is asked for, and it gives {answers.kind(found)}."
        for k, (name, right) in enumerate(zip(found, wanted, strict=True)):
            if name != right:
                shown = ", ".join(f"{c} {p:.2f}" for c, p in zip(CLASSES, odds[k], strict=True))
                return f"For {shown}, and at least {least}, the name is not right."
    return None


def top_two(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose label is among the two largest logits."""
    best = logits.topk(2, dim=1).indices
    return float((best == labels[:, None]).any(1).double().mean())


@exercise(
    "09.4",
    "`logits.topk(2, dim=1).indices` has two class numbers for each sample, (n, 2).",
    "Compare them with `labels[:, None]`. A sample is right if *any* of its two is.",
)
def metric_of_two(answer):
    cases = [(torch.randn(n, k), torch.randint(k, (n,))) for n, k in ((7, 4), (60, 5), (40, 12))]
    return answers.function(answer, top_two, cases, 1e-6)


@exercise(
    "09.5",
    "Look at `present` in section 5: it is a dict from a modality to one boolean for each sample.",
    "A recording is complete if none of its numbers is NaN: `~np.isnan(audio).any(axis=1)`.",
)
def lost_recordings(answer):
    if wrong := answers.called(answer):
        return wrong
    video, audio, labels = arrays()
    random = np.random.default_rng(2)
    lost = random.random(len(labels)) < 0.3
    audio[lost, random.integers(audio.shape[1], size=len(labels))[lost]] = np.nan
    task = answer(video, audio, labels)
    rows = rows_of(task, labels)
    if isinstance(rows, str):
        return rows
    names = [modality.name for modality in task.modalities]
    if set(names) != {"Video", "Audio"}:
        return "The modalities are not called Video and Audio."
    every = torch.cat(list(rows.values()))
    seen, heard = (every[:, names.index(name)] >= 0 for name in ("Video", "Audio"))
    if not seen.all():
        return "Some videos count as missing."
    wanted = torch.from_numpy(~lost)[every.max(1).values]
    if not torch.equal(heard, wanted):
        return f"{int((heard != wanted).sum())} recordings are not marked as they should be."
    return None


@exercise(
    "09.6",
    "Split the samples into those that have the modality and those that lack it.",
    "All of the first kind can be right. Of the second kind, a guess is right one time in k.",
)
def best_with_gaps(answer):
    cases = [(0.0, 4), (0.2, 4), (0.5, 2), (1.0, 10), (0.35, 3)]
    return answers.function(answer, lambda p, k: 1 - p + p / k, cases)
