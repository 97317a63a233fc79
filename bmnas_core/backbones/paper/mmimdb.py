"""VGG-19 and the Maxout MLP, the backbones of MM-IMDB's posters and plots."""

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
    layers, no BatchNorm; the first block has ``width`` channels. Tapped are the first and the last
    ReLU of block 4 (layers 20 and 26), the third ReLU of block 5 (33) and its max-pool (36).

    ``x: (N, 3, H, W)``, H and W at least 32 → four features ``(N, 8·width, H/8, W/8)`` twice,
    ``(…, H/16, W/16)`` and ``(…, H/32, W/32)``. The paper's posters are 256 × 160, normalised
    with ImageNet's mean and deviation.
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
            found = f"images of {x.shape[2]} × {x.shape[3]}"
            raise FeatureError("VGG19", found, "32 × 32 or more")
        features = []
        for number, layer in enumerate(self.vgg):
            x = layer(x)
            if number in TAPS:
                features.append(x)
        return features


class Maxout(nn.Module):
    """Each output is the largest of ``pieces`` linear functions (Goodfellow et al. 2013).

    ``(N, before)`` → ``(N, after)``
    """

    def __init__(self, before: int, after: int, pieces: int = 5):
        super().__init__()
        self.lin = nn.Linear(before, after * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x).unflatten(1, (-1, self.pieces)).amax(2)


class MaxoutMLP(Backbone):
    """Two maxout layers, each followed by BatchNorm and dropout (Arevalo et al. 2017).

    Tapped are both maxouts. ``x: (N, size)``, by default 300, the mean word2vec vector of a plot →
    two features ``(N, 64)`` and ``(N, 128)``.
    """

    channels = (64, 128)
    head = ("op4", "hid2val")

    def __init__(self, classes: int = 23, size: int = 300):
        super().__init__()
        self.size = size
        self.op1 = Maxout(size, 64)
        self.op2 = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(0.5))
        self.op3 = Maxout(64, 128)
        self.op4 = nn.Sequential(nn.BatchNorm1d(128), nn.Dropout(0.5))
        self.hid2val = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        self._check_input(x, "N", self.size)
        first = self.op1(x)
        return [first, self.op3(self.op2(first))]
