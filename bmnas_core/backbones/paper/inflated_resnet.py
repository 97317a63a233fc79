"""Inflated ResNet-50, the backbone of NTU RGB+D's videos, and its 3D bottleneck."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from ..backbone import Backbone, Conv2d, Conv3d

#: Of a kernel or a stride: frames, height, width.
Sizes = tuple[int, int, int]


class Bottleneck(nn.Module):
    """A 3D bottleneck with its shortcut: 1×1×1, 3×3×3 and 1×1×1 convolution (He et al. 2016).

    The shortcut is the identity; where channels change, a 1×1×1 convolution with BatchNorm.
    ``(N, before, T, H, W)`` → ``(N, after, T / stride[0], H / stride[1], W / stride[2])``

    Args:
        stride: of the middle convolution and of the shortcut.
        groups: separate groups of channels in the middle convolution.
    """

    def __init__(
        self, before: int, middle: int, after: int, stride: Sizes = (1, 1, 1), groups: int = 1
    ):
        super().__init__()
        self.conv1 = Conv3d(before, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(middle)
        self.conv2 = Conv3d(middle, middle, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(middle)
        self.conv3 = Conv3d(middle, after, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if before != after:
            shortcut = Conv3d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


def stage(
    before: int, middle: int, after: int, blocks: int, stride: Sizes = (1, 1, 1), groups: int = 1
) -> nn.Sequential:
    """A sequence of bottlenecks. The first changes channels and size."""
    return nn.Sequential(
        Bottleneck(before, middle, after, stride, groups),
        *(Bottleneck(after, middle, after, groups=groups) for _ in range(blocks - 1)),
    )


def average_pool(x: Tensor, kernel: Sizes, stride: int | None = None) -> Tensor:
    """Average pool of ``x: (N, C, T, H, W)``; the kernel is clipped to the size of ``x``."""
    return avg_pool3d(x, [min(k, n) for k, n in zip(kernel, x.shape[2:], strict=True)], stride)


class InflatedResNet50(Backbone):
    """ResNet-50 whose 3×3 kernels are "inflated" to 3×3×3, so that its bottlenecks see time.

    As in MFAS (Pérez-Rúa et al. 2019), after I3D (Carreira & Zisserman 2017). The first layers
    stay two-dimensional and see one frame at a time: 7×7 convolution with stride 2, BatchNorm,
    ReLU, 3×3 max-pool. Then come four stages of 3D bottlenecks, which halve height and width but
    keep every frame, an average pool (8, 7, 7) and a linear classifier. Tapped are stages 2, 3, 4
    and the pooled vector.

    ``x: (N, T, H, W, 3)`` → features ``(N, 8·width, T, H/8, W/8)``, ``(N, 16·width, T, H/16,
    W/16)``, ``(N, 32·width, T, H/32, W/32)`` and ``(N, 32·width)``. The paper uses 8 frames of
    256 × 256, normalised with ImageNet's mean and deviation.

    Args:
        classes: logits of ``classify``.
        width: channels of the first convolution.
        blocks: bottlenecks in each stage.
    """

    head = ("classifier",)
    imagenet = {"conv1.": "cnn.conv1.", "bn1.": "cnn.bn1.", "layer": "cnn.layer", "fc.": None}

    def __init__(self, classes: int = 60, width: int = 64, blocks: tuple[int, ...] = (3, 4, 6, 3)):
        super().__init__()
        halve = (1, 2, 2)
        self.cnn = nn.ModuleDict(
            {
                "conv1": Conv2d(3, width, 7, stride=2, padding=3, bias=False),
                "bn1": nn.BatchNorm2d(width),
                "layer1": stage(width, width, 4 * width, blocks[0]),
                "layer2": stage(4 * width, 2 * width, 8 * width, blocks[1], halve),
                "layer3": stage(8 * width, 4 * width, 16 * width, blocks[2], halve),
                "layer4": stage(16 * width, 8 * width, 32 * width, blocks[3], halve),
            }
        )
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.classifier = nn.Linear(32 * width, classes)
        self.channels = (8 * width, 16 * width, 32 * width, 32 * width)

    def forward(self, x: Tensor) -> list[Tensor]:
        self._check_input(x, "N", "T", "H", "W", 3)
        frames = x.permute(0, 1, 4, 2, 3).flatten(0, 1)
        frames = self.maxpool(self.relu(self.cnn.bn1(self.cnn.conv1(frames))))
        x = frames.unflatten(0, x.shape[:2]).transpose(1, 2)
        second = self.cnn.layer2(self.cnn.layer1(x))
        third = self.cnn.layer3(second)
        fourth = self.cnn.layer4(third)
        pooled = average_pool(fourth, (8, 7, 7)).flatten(2).mean(2)
        return [second, third, fourth, pooled]

    def classify(self, features: list[Tensor]) -> Tensor:
        return self.classifier(features[-1])
