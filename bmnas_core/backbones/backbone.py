"""The base of the paper's backbones, layers with He's initial values, and a small backbone."""

from torch import Tensor, nn

from ..networks import FeatureError

#: The origin of weights that were neither trained nor read.
INITIAL = "initial values"
#: The origin of weights that learned from the training split of the task that they are in.
TRAINED_HERE = "trained here"


class Backbone(nn.Module):
    """A network from raw inputs to tapped features, with a classifier of its own on top.

    ``forward(x)`` returns the list of tapped features, first block first; ``classify(features)``
    maps that list to logits (N, classes), under which the backbone is trained alone. In evaluation
    mode both are pure functions. Parameters have the names of the published checkpoints, see
    :func:`~bmnas_core.backbones.paper.checkpoints.load_checkpoint`.

    Attributes:
        channels: channels of each tapped feature.
        head: the parts that only ``classify`` uses, in order. The features do not depend on them.
        imagenet: prefix of names in torchvision's ImageNet weights → our prefix, or None for
            weights that are not used. Empty for a backbone without such weights.
    """

    channels: tuple[int, ...]
    head: tuple[str, ...] = ()
    imagenet: dict[str, str | None] = {}
    _origin = INITIAL  # or the file that was read; private, so that no fingerprint depends on it

    def classify(self, features: list[Tensor]) -> Tensor:
        x = last_mean(features)
        for part in self.head:
            x = getattr(self, part)(x)
        return x

    def _check_input(self, x: Tensor, *axes: str | int) -> None:
        """Raise FeatureError unless ``x`` has these axes; a letter stands for any size."""
        fixed = tuple(n if isinstance(a, str) else a for n, a in zip(x.shape, axes, strict=False))
        if x.dim() != len(axes) or x.shape != fixed or 0 in x.shape[1:]:
            found, allowed = f"an input of shape {tuple(x.shape)}", ", ".join(map(str, axes))
            raise FeatureError(type(self).__name__, found, f"({allowed})")


def last_mean(features: list[Tensor]) -> Tensor:
    """The last feature's mean over its positions: (N, C) or (N, C, …) → (N, C)."""
    last = features[-1]
    return last.mean(tuple(range(2, last.dim()))) if last.dim() > 2 else last


class _He:
    """Initial values that keep the scale through many layers with ReLUs (He et al. 2015)."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Linear(_He, nn.Linear):
    """A linear layer with He's initial values."""


class Conv2d(_He, nn.Conv2d):
    """A 2D convolution with He's initial values."""


class Conv3d(_He, nn.Conv3d):
    """A 3D convolution with He's initial values."""


class ConvBackbone(nn.Module):
    """Three blocks of convolution, BatchNorm, ReLU and 2×2 max-pooling; each block is a feature.

    ``x: (N, 1, H, W)`` → three features ``(N, channels[i], H / 2^(i+1), W / 2^(i+1))``.

    With an ``embedding``, as published backbones have it, a fourth feature (N, embedding) follows:
    the mean of the last block over its positions, a linear layer, BatchNorm and ReLU.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64), embedding: int | None = None):
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
        if embedding:
            self.channels += (embedding,)
            self.blocks.append(
                nn.Sequential(
                    nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(),
                    nn.Linear(channels[-1], embedding, bias=False),
                    nn.BatchNorm1d(embedding),
                    nn.ReLU(),
                )
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features
