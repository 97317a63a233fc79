"""A three-block convolutional backbone for small images and spectrograms."""

from __future__ import annotations

from torch import Tensor, nn


class ConvBackbone(nn.Module):
    """Three blocks of convolution, BatchNorm, ReLU and 2×2 max-pooling; each block is a feature.

    ``x: (N, 1, H, W)`` → three features ``(N, channels[i], H / 2^(i+1), W / 2^(i+1))``.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)):
        super().__init__()
        self.channels = tuple(channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for before, after in zip((1, *channels[:-1]), channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features
