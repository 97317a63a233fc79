"""HCN, the backbone of NTU RGB+D's skeletons."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..backbone import Backbone, Conv2d, Linear

FRAMES, JOINTS, BODIES = 32, 25, 2


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

    Args:
        classes: logits of ``classify``.
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

    def classify(self, features: list[Tensor]) -> Tensor:
        return self.fc8(features[-1])


def _halving(before: int, after: int, *layers: nn.Module) -> nn.Sequential:
    """3×3 convolution, ``layers``, 2×2 max-pool."""
    return nn.Sequential(Conv2d(before, after, 3, padding=1), *layers, nn.MaxPool2d(2))
