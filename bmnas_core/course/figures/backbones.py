"""Figures of notebook 01, backbones."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...draw.canvas import MUTED, SEARCHED
from ...tasks.task import Modality, Task


def _show(ax, values: Tensor, is_image: bool, **look) -> None:
    """An image, row 0 on top, or a spectrogram, low frequencies at the bottom: (H, W)."""
    ax.imshow(values, origin="upper" if is_image else "lower", **look)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def draw_items(tasks: Mapping[str, Task], digits: int = 6):
    """The first item of each digit, (1, H, W), a row for each modality and rule."""
    axes = plt.subplots(2 * len(tasks), digits, figsize=(8.6, 3.1 * len(tasks)))[1]
    rows = iter(axes)
    for m, rule in ((m, rule) for m in (0, 1) for rule in tasks):
        modality, notes, row = tasks[rule].modalities[m], tasks[rule].notes, next(rows)
        knob = f"{notes['snr_db']:g} dB".replace("-", "−")
        if m == 0:
            knob = f"{notes['image_energy']:.0%} of variance"
        row[0].set_ylabel(f"{modality.name}, {rule}\n{knob}")
        for digit, ax in enumerate(row):
            item = (modality.classes == digit).nonzero()[0, 0]
            _show(ax, modality.inputs[item, 0], m == 0, cmap=None if m else "gray_r")
    for digit, ax in enumerate(axes[0]):
        ax.set_title(f"{digit}", loc="center")
    return axes


def draw_confusions(counts: Mapping[str, Tensor]):
    """Answers of classifiers by the digit shown, side by side: modality → (10, 10) counts."""
    figure, axes = plt.subplots(1, len(counts), figsize=(8.6, 3.9))
    for ax, (name, found) in zip(axes, counts.items(), strict=True):
        found = found.double()
        ax.imshow(found / found.sum(1, keepdim=True), vmin=0, vmax=1)
        ax.set_title(f"{name}: {float(found.diagonal().sum() / found.sum()):.1%} right")
        ax.set(xlabel="answer", ylabel="digit shown", xticks=range(10), yticks=range(10))
        ax.grid(False)
    figure.colorbar(ax.images[0], ax=axes, label="share of the row", shrink=0.8)
    return axes


def draw_maps(task: Task, sample: int, channels: int = 12):
    """One training sample: its inputs, and the strongest channels of each block, (C, H, W)."""
    features = len(task.features)
    axes = plt.subplots(features, channels + 1, figsize=(8.6, 0.77 * features))[1]
    rows = iter(axes)
    for m, modality in enumerate(task.modalities):
        item = task.split("train").index[sample, m]
        for name, output in zip(modality.channels, _outputs(modality, item), strict=True):
            row = next(rows)
            _show(row[0], modality.inputs[item, 0], m == 0, cmap=None if m else "gray_r")
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
            strongest = output.amax((1, 2)).topk(channels).indices
            for ax, channel in zip(row[1:], strongest, strict=True):
                _show(ax, output[channel], m == 0)
    axes[0, 0].set_title("input", loc="center", fontsize=9)
    axes[0, (channels + 1) // 2].set_title(
        f"the {channels} strongest channels of each block", loc="center", fontsize=9
    )
    return axes


def _outputs(modality: Modality, item: Tensor) -> list[Tensor]:
    """Each block's output for one item, (C, H, W)."""
    with torch.no_grad():
        return [output[0] for output in modality.backbone(modality.inputs[item][None])]


def draw_planes(planes: Mapping[str, np.ndarray], digits: Mapping[str, Tensor]):
    """Samples in two dimensions, coloured by digit: feature → (n, 2), and its digits, (n,)."""
    figure, axes = plt.subplots(2, -(-len(planes) // 2), figsize=(8.6, 5.6))
    for ax, (name, plane) in zip(axes.flat, planes.items(), strict=True):
        look = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "s": 5, "rasterized": True}
        dots = ax.scatter(*plane.T, c=digits[name], **look)
        ax.set(title=name, xticks=[], yticks=[])
        ax.grid(False)
    figure.colorbar(dots, ax=axes, ticks=range(10), label="digit", shrink=0.7)
    return axes


def draw_alone(scores: pd.DataFrame, floor: float, title: str):
    """Scores of each feature alone as bars: (features, splits), above a line of a constant."""
    ax = plt.subplots(figsize=(8.6, 3.2))[1]
    scores.plot.bar(ax=ax, rot=0, color=["#B9C0C8", SEARCHED], width=0.75)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.2f", fontsize=9)
    ax.axhline(floor, color=MUTED, linestyle=":", linewidth=1)
    right = len(scores) - 0.5
    ax.text(right, floor, " always the\n same answer", va="center", fontsize=9)
    ax.set(title=title, ylim=(0, 1.22), xlim=(-0.6, right + 1), yticks=np.arange(0, 1.1, 0.2))
    ax.legend(ncols=2, loc="upper left")
    ax.grid(axis="x", visible=False)
    return ax
