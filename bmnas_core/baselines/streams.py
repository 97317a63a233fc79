"""Rivals without Cells: each modality alone, and late fusion."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..tasks.task import Task
from .rivals import Contest, register_rival


class LinearFusion(nn.Module):
    """Named features, normalised, flattened and concatenated → one linear classifier.

    With the last feature of one modality it is that modality alone; with the last features of all
    it is late fusion by concatenation.

    Args:
        channels: feature name → channels of the features it reads.
    """

    def __init__(self, channels: dict[str, int], classes: int, L: int):
        super().__init__()
        self.channels, self.L = dict(channels), L
        self.bn = nn.BatchNorm1d(sum(channels.values()))
        self.linear = nn.Linear(sum(channels.values()) * L, classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        joined = torch.cat([features[name] for name in self.channels], dim=1)
        return self.linear(self.bn(joined).flatten(1))


class LateFusion(nn.Module):
    """Two-stream late fusion: the mean of the logits of networks trained apart."""

    def __init__(self, streams: list[nn.Module]):
        super().__init__()
        self.streams = nn.ModuleList(streams)
        self.L = streams[0].L

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        return torch.stack([stream(features) for stream in self.streams]).mean(0)


def last_features(task: Task) -> list[dict[str, int]]:
    """The last feature of each modality, as name → channels."""
    return [dict([list(modality.channels.items())[-1]]) for modality in task.modalities]


def _linear(contest: Contest, channels: dict[str, int]) -> nn.Module:
    classes, L = contest.task.classes, contest.config.L
    return contest.fit(lambda: LinearFusion(channels, classes, L))


@register_rival("single modalities")
def single_modalities(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """Each modality alone."""
    for modality, channels in zip(
        contest.task.modalities, last_features(contest.task), strict=True
    ):
        yield f"{modality.name} alone", [_linear(contest, channels)]


@register_rival("late fusion")
def late_fusion(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """Logits averaged, and last features concatenated."""
    streams = last_features(contest.task)
    apart = [_linear(contest, channels) for channels in streams]
    yield "late fusion, averaged", [LateFusion(apart).eval()]
    joined = {name: c for channels in streams for name, c in channels.items()}
    yield "late fusion, concatenated", [_linear(contest, joined)]
