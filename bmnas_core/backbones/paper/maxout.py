"""The Maxout MLP, the backbone of MM-IMDB's plots."""

from __future__ import annotations

from torch import Tensor, nn

from ..backbone import Backbone


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

    Tapped are both maxouts. ``x: (N, 300)``, the mean word2vec vector of a plot → two features
    ``(N, 64)`` and ``(N, 128)``.
    """

    channels = (64, 128)
    head = ("op4", "hid2val")

    def __init__(self, classes: int = 23):
        super().__init__()
        self.op1 = Maxout(300, 64)
        self.op2 = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(0.5))
        self.op3 = Maxout(64, 128)
        self.op4 = nn.Sequential(nn.BatchNorm1d(128), nn.Dropout(0.5))
        self.hid2val = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        self._check_input(x, "N", 300)
        first = self.op1(x)
        return [first, self.op3(self.op2(first))]

    def classify(self, features: list[Tensor]) -> Tensor:
        return self.hid2val(self.op4(features[-1]))
