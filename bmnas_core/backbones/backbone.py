"""What the backbones of the paper's tasks have in common, and layers with He's initial values."""

from __future__ import annotations

from torch import Tensor, nn

from ..networks import FeatureError

#: What a backbone's weights are before they are trained or read.
INITIAL = "initial values"


class Backbone(nn.Module):
    """A network from raw inputs to tapped features, with a classifier of its own on top.

    ``forward(x)`` gives the list of tapped features, first block first; ``classify(features)``
    turns that list into logits (N, classes), which is how the backbone is trained alone. In
    evaluation mode both are pure functions. Parameters bear the names of the published
    checkpoints, see :func:`~bmnas_core.backbones.checkpoints.load_checkpoint`.

    Attributes:
        channels: channels of each tapped feature.
        head: the parts that only ``classify`` uses. The features do not depend on them.
        imagenet: how the names in torchvision's ImageNet weights begin → how ours do; None for
            what we have no use for. Empty where there are no such weights.
    """

    channels: tuple[int, ...]
    head: tuple[str, ...] = ()
    imagenet: dict[str, str | None] = {}
    _origin = INITIAL  # or the file that was read; underscored, so no bank depends on it

    def classify(self, features: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def _check_input(self, x: Tensor, *axes: str | int) -> None:
        """Raise FeatureError unless ``x`` has these axes: of a fixed size, or a letter for any."""
        fixed = tuple(n if isinstance(a, str) else a for n, a in zip(x.shape, axes, strict=False))
        if x.dim() != len(axes) or x.shape != fixed or 0 in x.shape[1:]:
            raise FeatureError(
                f"{type(self).__name__}: found an input of shape {tuple(x.shape)}; allowed: "
                f"({', '.join(map(str, axes))})"
            )


class _He:
    """Initial values that keep the scale through any number of ReLUs (He et al. 2015)."""

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
