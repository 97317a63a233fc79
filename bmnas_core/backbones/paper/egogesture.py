"""3D ResNeXt-101, the backbone of EgoGesture's colour and depth videos."""

from torch import Tensor, nn

from ...config import ConfigError
from ..backbone import Backbone, Conv3d
from .ntu import average_pool, stages


class ResNeXt3D(Backbone):
    """ResNeXt-101 (Xie et al. 2017) in three dimensions (Hara et al. 2018).

    The bottlenecks are those of :mod:`~bmnas_core.backbones.paper.ntu` with two differences: the
    middle convolution is twice as wide and has ``cardinality`` separate groups, and the stages, of
    ``blocks`` bottlenecks each, halve time too. Before them come a convolution of stride (1, 2, 2)
    to ``width`` channels, 3×7×7 for 3 ``colours`` and 7×7×7 for 1, which is depth; BatchNorm, ReLU
    and a 3×3×3 max-pool of stride 2; after them an average pool (2, 4, 4) and a linear classifier.
    Tapped are stages 2, 3, 4 and the pooled feature.

    ``x: (N, colours, T, H, W)`` → features ``(N, 8·width, T/4, H/8, W/8)``, ``(N, 16·width, T/8,
    H/16, W/16)``, ``(N, 32·width, T/16, H/32, W/32)`` and ``(N, 32·width, 1, 1, 1)``. The paper
    uses 32 frames of 112 × 112. Raises ConfigError unless ``cardinality`` divides 2·width.
    """

    head = ("fc",)

    def __init__(
        self,
        classes: int = 83,
        colours: int = 3,
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 23, 3),
        cardinality: int = 32,
    ):
        super().__init__()
        if colours not in (1, 3):
            raise ConfigError("ResNeXt3D: colours", repr(colours), "1 or 3")
        if 2 * width % cardinality:
            allowed = f"divisors of 2 · width, {2 * width}"
            raise ConfigError("ResNeXt3D: cardinality", cardinality, allowed)
        self.colours = colours
        length = 7 if colours == 1 else 3  # of the first kernel, in frames
        padding = (length // 2, 3, 3)
        self.conv1 = Conv3d(colours, width, (length, 7, 7), (1, 2, 2), padding, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        for name, layer in stages(width, 2, blocks, (2, 2, 2), cardinality).items():
            self.add_module(name, layer)
        self.fc = nn.Linear(32 * width, classes)
        self.channels = (8 * width, 16 * width, 32 * width, 32 * width)

    def forward(self, x: Tensor) -> list[Tensor]:
        self._check_input(x, "N", self.colours, "T", "H", "W")
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        second = self.layer2(self.layer1(x))
        third = self.layer3(second)
        fourth = self.layer4(third)
        return [second, third, fourth, average_pool(fourth, (2, 4, 4), stride=1)]
