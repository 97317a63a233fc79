"""Inflated ResNet-50 and HCN, the backbones of NTU RGB+D's videos and skeletons."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, interpolate

from ..backbone import Backbone, Conv2d, Conv3d, Linear

FRAMES, JOINTS, BODIES = 32, 25, 2

#: Of a kernel or a stride: frames, height, width.
Sizes = tuple[int, int, int]


class Bottleneck(nn.Module):
    """A 3D bottleneck: 1×1×1, 3×3×3 and 1×1×1 convolution (He et al. 2016), and its shortcut.

    The shortcut is the identity; where channels change, a 1×1×1 convolution with BatchNorm. The
    middle convolution has ``stride``, as the shortcut, and ``groups`` of channels.
    ``(N, before, T, H, W)`` → ``(N, after, T / stride[0], H / stride[1], W / stride[2])``
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


def stages(
    width: int, widening: int, blocks: tuple[int, ...], stride: Sizes, groups: int = 1
) -> dict[str, nn.Sequential]:
    """``layer1``, ``layer2``, …: ``blocks`` bottlenecks each, twice as wide as the one before.

    The first bottleneck changes the channels and, except in ``layer1``, the size by ``stride``.
    """
    layers, before = {}, width
    for k, n in enumerate(blocks):
        middle, after = 2**k * widening * width, 2**k * 4 * width
        first = Bottleneck(before, middle, after, stride if k else (1, 1, 1), groups)
        others = (Bottleneck(after, middle, after, groups=groups) for _ in range(n - 1))
        layers[f"layer{k + 1}"] = nn.Sequential(first, *others)
        before = after
    return layers


def average_pool(x: Tensor, kernel: Sizes, stride: int | None = None) -> Tensor:
    """Average pool of ``x: (N, C, T, H, W)``; the kernel is clipped to the size of ``x``."""
    return avg_pool3d(x, [min(k, n) for k, n in zip(kernel, x.shape[2:], strict=True)], stride)


class InflatedResNet50(Backbone):
    """ResNet-50 whose 3×3 kernels are "inflated" to 3×3×3, so that its bottlenecks see time.

    As in MFAS (Pérez-Rúa et al. 2019), after I3D (Carreira & Zisserman 2017). The first layers
    see one frame at a time: 7×7 convolution to ``width`` channels with stride 2, BatchNorm, ReLU,
    3×3 max-pool. Then come four stages of 3D bottlenecks, ``blocks`` in each, which halve height
    and width but keep every frame, an average pool (8, 7, 7) and a linear classifier. Tapped are
    stages 2, 3, 4 and the pooled vector.

    ``x: (N, T, H, W, 3)`` → features ``(N, 8·width, T, H/8, W/8)``, ``(N, 16·width, T, H/16,
    W/16)``, ``(N, 32·width, T, H/32, W/32)`` and ``(N, 32·width)``. The paper uses 8 frames of
    256 × 256, normalised with ImageNet's mean and deviation.
    """

    head = ("classifier",)
    imagenet = {"conv1.": "cnn.conv1.", "bn1.": "cnn.bn1.", "layer": "cnn.layer", "fc.": None}

    def __init__(self, classes: int = 60, width: int = 64, blocks: tuple[int, ...] = (3, 4, 6, 3)):
        super().__init__()
        self.cnn = nn.ModuleDict()
        self.cnn["conv1"] = Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.cnn["bn1"] = nn.BatchNorm2d(width)
        self.cnn.update(stages(width, 1, blocks, (1, 2, 2)))
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


class HCN(Backbone):
    """Hierarchical co-occurrence network (Li et al. 2018, "Co-occurrence feature learning …").

    Each body's positions and their motion, the differences of successive frames, go through
    convolutions of their own. The first two (``conv1``, ``conv2``) see each joint alone. Then
    joints become channels, so that ``conv3`` and ``conv4`` see all joints at once: their
    co-occurrence. Positions and motion are concatenated for ``conv5`` and ``conv6``, whose maximum
    over the bodies goes to two linear layers. Tapped are conv5 and conv6, each as the maximum over
    the bodies, conv6 flattened, and ``fc7``.

    ``x: (N, 3, 32, 25, 2)``: coordinates, frames, joints, bodies; zeros for a missing body →
    features ``(N, 128, 4, 4)``, ``(N, 256, 2, 2)``, ``(N, 1024)`` and ``(N, 512)``.
    """

    channels = (128, 256, 1024, 512)
    head = ("fc8",)

    def __init__(self, classes: int = 60):
        super().__init__()
        for stream in ("", "m"):  # positions, motion
            self.add_module(f"conv1{stream}", nn.Sequential(Conv2d(3, 64, 1), nn.ReLU()))
            self.add_module(f"conv2{stream}", Conv2d(64, 32, (3, 1), padding=(1, 0)))
            self.add_module(f"conv3{stream}", _halving(JOINTS, 32))
            self.add_module(f"conv4{stream}", _halving(32, 64, nn.Dropout(0.5)))
        self.conv5 = _halving(128, 128, nn.ReLU(), nn.Dropout(0.5))
        self.conv6 = _halving(128, 256, nn.ReLU(), nn.Dropout(0.5))
        self.fc7 = nn.Sequential(Linear(1024, 512), nn.ReLU(), nn.Dropout(0.5))
        self.fc8 = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        self._check_input(x, "N", 3, FRAMES, JOINTS, BODIES)
        bodies = x.permute(0, 4, 1, 2, 3).flatten(0, 1)
        motion = interpolate(bodies.diff(dim=2), bodies.shape[2:], mode="bilinear")
        position = self.conv2(self.conv1(bodies)).permute(0, 3, 2, 1)
        motion = self.conv2m(self.conv1m(motion)).permute(0, 3, 2, 1)
        position = self.conv4(self.conv3(position))
        motion = self.conv4m(self.conv3m(motion))
        fifth = self.conv5(torch.cat([position, motion], 1))
        sixth = self.conv6(fifth)
        fifth, sixth = (y.unflatten(0, (-1, BODIES)).amax(1) for y in (fifth, sixth))
        return [fifth, sixth, sixth.flatten(1), self.fc7(sixth.flatten(1))]


def _halving(before: int, after: int, *layers: nn.Module) -> nn.Sequential:
    """3×3 convolution, ``layers``, 2×2 max-pool."""
    return nn.Sequential(Conv2d(before, after, 3, padding=1), *layers, nn.MaxPool2d(2))
