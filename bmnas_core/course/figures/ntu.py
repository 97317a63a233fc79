"""Figures of notebook 11, NTU RGB+D."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from torch import Tensor

from ...draw.canvas import MUTED

#: Joints, counted from 0, that are joined by a line.
BONES = (
    (0, 1), (1, 20), (20, 2), (2, 3), (20, 4), (4, 5), (5, 6), (6, 7), (20, 8), (8, 9), (9, 10),
    (10, 11), (0, 12), (12, 13), (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
)  # fmt: skip
MOMENTS = 6


def draw_clips(titles: Sequence[str], videos: Sequence[Tensor], skeletons: Sequence[Tensor]):
    """Six moments of each clip, the video above and the skeleton below.

    videos: (8, H, W, 3) in 0 … 1; skeletons: (3, 32, 25, bodies), of which the first is drawn.
    """
    parts = plt.figure(figsize=(8.6, 8.6)).subfigures(len(titles), 1)
    for part, title, video, skeleton in zip(parts, titles, videos, skeletons, strict=True):
        part.suptitle(title, x=0.01, ha="left")
        for t, (above, below) in enumerate(part.subplots(2, MOMENTS).T):
            above.imshow(video[t + 1])
            above.set(xticks=[], yticks=[])
            above.grid(False)
            moment = int((t + 1) * (skeleton.shape[1] - 1) / (len(video) - 1))
            _draw_body(below, skeleton[:2, moment, :, 0])
            below.set(xlim=(-1.1, 1.1), ylim=(-1.4, 0.8), aspect="equal")
            below.axis("off")


def _draw_body(ax, joints: Tensor, colour: str = "C0") -> None:
    """A skeleton as lines; joints: (2, 25), x and y."""
    for a, b in BONES:
        ax.plot(*joints[:, [a, b]], color=colour, linewidth=1.5)


def draw_origins(raw: Sequence[Tensor], centred: Sequence[Tensor]):
    """First frames of some skeletons, each (T, 25, 3): where the camera sees them, and centred."""
    _, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    titles = "From the camera", "From the middle of the spine"
    for ax, title, bodies in zip(axes, titles, (raw, centred), strict=True):
        for k, body in enumerate(bodies):
            _draw_body(ax, body[0, :, :2].T, f"C{k}")
        ax.plot(0, 0, "+", color=MUTED, markersize=10)
        ax.set(title=title, aspect="equal", xlabel="metres to the side", xlim=(-1.2, 1.2))
    axes[0].set_ylabel("metres up")
    return axes


def draw_turns(degrees: Sequence[float], scores: Sequence[float], chance: float):
    """Accuracy of the skeleton backbone on bodies that are turned; returns the Axes."""
    _, ax = plt.subplots(figsize=(8.6, 2.9))
    ax.plot(degrees, scores, "o-")
    ax.axhline(chance, color=MUTED, linestyle="--", linewidth=1.2)
    ax.text(degrees[0], chance + 0.02, "chance", color=MUTED, fontsize=9)
    ax.set(title="The same actions, seen from another side", xticks=list(degrees))
    ax.set(xlabel="degrees by which every skeleton is turned", ylabel="accuracy, validation")
    ax.set_ylim(0, 1.25 * max(*scores, chance))
    return ax
