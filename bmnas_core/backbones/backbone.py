"""The base of the paper's backbones, and layers with He's initial values."""

from __future__ import annotations

from torch import Tensor, nn

from ..networks import FeatureError

#: The origin of weights that were neither trained nor read.
INITIAL = "initial values"


class Backbone(nn.Module):
    """A network from raw inputs to tapped features, with a classifier of its own on top.

    ``forward(x)`` returns the list of tapped features, first block first; ``classify(features)``
    maps that list to logits (N, classes), under which the backbone is trained alone. In evaluation
    mode both are pure functions. Parameters have the names of the published checkpoints, see
    :func:`~bmnas_core.backbones.paper.checkpoints.load_checkpoint`.

    Attributes:
        channels: channels of each tapped feature.
        head: the parts that only ``classify`` uses. The features do not depend on them.
        imagenet: prefix of names in torchvision's ImageNet weights → our prefix, or None for
            weights that are not used. Empty for a backbone without such weights.
    """

    channels: tuple[int, ...]
    head: tuple[str, ...] = ()
    imagenet: dict[str, str | None] = {}
    _origin = INITIAL  # or the file that was read; private, so that no fingerprint depends on it

    def classify(self, features: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def _check_input(self, x: Tensor, *axes: str | int) -> None:
        """Raise FeatureError unless ``x`` has these axes; a letter stands for any size."""
        fixed = tuple(n if isinstance(a, str) else a for n, a in zip(x.shape, axes, strict=False))
        if x.dim() != len(axes) or x.shape != fixed or 0 in x.shape[1:]:
            name, allowed = type(self).__name__, ", ".join(map(str, axes))
            found = tuple(x.shape)
            raise FeatureError(f"{name}: found an input of shape {found}; allowed: ({allowed})")


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
