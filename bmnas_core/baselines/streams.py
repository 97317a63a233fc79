"""Rivals without Cells: each modality alone, and late fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearFusion(nn.Module):
    """Named features, flattened and concatenated → one linear classifier.

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
    """Two-stream late fusion: the mean of the log-probabilities of networks trained apart."""

    def __init__(self, streams: list[nn.Module]):
        super().__init__()
        self.streams = nn.ModuleList(streams)
        self.L = streams[0].L

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → log-probabilities (N, classes)."""
        return torch.stack([s(features).log_softmax(1) for s in self.streams]).mean(0)
