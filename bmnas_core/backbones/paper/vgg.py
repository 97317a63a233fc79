"""VGG-19, the backbone of MM-IMDB's posters."""

from __future__ import annotations

from torch import Tensor, nn

from ...networks import FeatureError
from ..backbone import Backbone, Conv2d

#: Convolutions in each block, and the block's channels in units of ``width``.
BLOCKS = ((2, 1), (2, 2), (4, 4), (4, 8), (4, 8))
#: Layers of ``vgg`` whose outputs are the features.
TAPS = (20, 26, 33, 36)


class VGG19(Backbone):
    """VGG-19 (Simonyan & Zisserman 2015, configuration E), convolutions only.

    Five blocks of 3×3 convolutions with ReLU, each ending in a 2×2 max-pool: 16 convolutions, 37
    layers, no BatchNorm. Tapped are the first and the last ReLU of block 4 (layers 20 and
    26), the third ReLU of block 5 (33) and its max-pool (36).

    ``x: (N, 3, H, W)``, H and W at least 32 → four features ``(N, 8·width, H/8, W/8)`` twice,
    ``(…, H/16, W/16)`` and ``(…, H/32, W/32)``. The paper's posters are 256 × 160, normalised
    with ImageNet's mean and deviation.

    Args:
        classes: logits of ``classify``, which takes the mean over the last feature's positions,
            BatchNorm and a linear layer.
        width: channels of the first block.
    """

    head = ("bn4", "classifier")
    imagenet = {"features.": "vgg.", "classifier.": None}

    def __init__(self, classes: int = 23, width: int = 64):
        super().__init__()
        layers, before = [], 3
        for convolutions, times in BLOCKS:
            for _ in range(convolutions):
                layers += [Conv2d(before, times * width, 3, padding=1), nn.ReLU(inplace=True)]
                before = times * width
            layers.append(nn.MaxPool2d(2))
        self.vgg = nn.Sequential(*layers)
        self.bn4 = nn.BatchNorm1d(before)
        self.classifier = nn.Linear(before, classes)
        self.channels = (before,) * len(TAPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        self._check_input(x, "N", 3, "H", "W")
        if min(x.shape[2:]) < 32:
            found = f"{x.shape[2]} × {x.shape[3]}"
            raise FeatureError(f"VGG19: found images of {found}; allowed: 32 × 32 or more")
        features = []
        for number, layer in enumerate(self.vgg):
            x = layer(x)
            if number in TAPS:
                features.append(x)
        return features

    def classify(self, features: list[Tensor]) -> Tensor:
        return self.classifier(self.bn4(features[-1].mean((2, 3))))
