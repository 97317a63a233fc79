"""Figures of notebook 12, EgoGesture."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from torch import Tensor

MOMENTS = 7


def draw_gestures(titles: Sequence[str], clips: Sequence[Sequence[Tensor]], names: Sequence[str]):
    """Seven moments of each gesture, a row a modality; clips: (colours, T, H, W) in 0 … 1 each."""
    parts = plt.figure(figsize=(8.6, 7.6)).subfigures(len(titles), 1)
    for part, title, modalities in zip(parts, titles, clips, strict=True):
        part.suptitle(title, x=0.01, ha="left")
        for row, name, clip in zip(part.subplots(2, MOMENTS), names, modalities, strict=True):
            row[0].set_ylabel(name, fontsize=9)
            for t, ax in enumerate(row):
                frame = clip[:, int(t * (clip.shape[1] - 1) / (MOMENTS - 1))].movedim(0, -1)
                ax.imshow(frame.squeeze(), cmap="gray", vmin=0, vmax=1)  # one scale, or no depth
                ax.set(xticks=[], yticks=[])
                ax.grid(False)


def draw_depths(scores: Sequence[Sequence[float]], labels: Sequence[str]):
    """Scores of several seeds for each pair of features that was fused, and their means."""
    _, ax = plt.subplots(figsize=(8.6, 3.2))
    means = [sum(own) / len(own) for own in scores]
    ax.plot(range(len(scores)), means, "_-", color="C0", markersize=26, linewidth=1.2)
    for x, own in enumerate(scores):
        ax.plot([x] * len(own), own, "o", color="C0", alpha=0.5, markersize=5, linewidth=0)
    ax.set_xticks(range(len(scores)), labels)
    ax.set(title="Early fusion on the left, late fusion on the right", xlabel="features that meet")
    ax.set(ylabel="accuracy, validation", xlim=(-0.5, len(scores) - 0.5))
    return ax
