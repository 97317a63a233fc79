"""Figures of notebook 00, quickstart."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ...draw.canvas import SEARCHED
from ...search import SearchConfig, SearchState
from ...tasks.digits import clips
from ...tasks.rules import is_high
from ...tasks.task import Task

GREY = "#B9C0C8"
#: Of the groups of scores, in order.
COLOURS = ("C0", "C4", "C1", "C5", "C3")


def draw_pairs(task: Task, count: int = 6):
    """The first training pairs: images (1, H, W) over spectrograms (1, bands, moments)."""
    image, audio = task.modalities
    pairs = task.split("train")
    axes = plt.subplots(2, count, figsize=(8.6, 3.3))[1]
    for k, (picture, sound) in enumerate(axes.T):
        i, a = pairs.index[k].tolist()
        picture.imshow(image.inputs[i, 0], cmap="gray_r")
        sound.imshow(audio.inputs[a, 0], origin="lower")
        written, said = int(image.classes[i]), int(audio.classes[a])
        label = task.class_names[pairs.labels[k]].replace("-", "−")
        title = f"{written} and {said} → {label}"
        if task.rule == "voice":
            high = is_high(clips()[a].voice)
            title = f"{written} {'+' if high else '−'} {said} = {label}"
            sound.set_title("high voice" if high else "low voice", loc="center", fontsize=9)
        picture.set_title(title, loc="center", fontsize=10)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set(ylabel="frequency", xlabel="time")
    return axes


def draw_probes(scores: pd.DataFrame, guessing: Mapping[str, float]):
    """Accuracies of probes as a heatmap: a row for each label, a column for each feature.

    Args:
        scores: (labels, features), NaN where a feature cannot say.
        guessing: label → the accuracy of a guess, where the colours begin.
    """
    ax = plt.subplots(figsize=(8.6, 0.8 + 0.5 * len(scores)))[1]
    floors = np.array([guessing[name] for name in scores.index])[:, None]
    known = (scores - floors) / (1 - floors)
    ax.imshow(known, cmap="Blues", vmin=0, vmax=1.8, aspect="auto")
    for (row, column), score in np.ndenumerate(scores):
        text = "–" if np.isnan(score) else f"{score:.2f}"
        ax.text(column, row, text, ha="center", va="center")
    heads = [f"{name}\n(guessing: {guessing[name]:.2f})" for name in scores.index]
    ax.set_xticks(range(len(scores.columns)), scores.columns)
    ax.set_yticks(range(len(scores)), heads)
    ax.set_title("Accuracy of a linear probe on validation")
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.grid(False)
    return ax


def draw_search(states: Sequence[SearchState], config: SearchConfig, metric: str):
    """Left the losses of the hypernet, right all scores on validation in order."""
    updates = [state for state in states if state.phase != "selection"]
    epochs = [state.val_score for state in updates if state.val_score is not None]
    selected = [state.val_score for state in states if state.phase == "selection"]
    losses = pd.DataFrame(
        {
            "training batch": [state.train_loss for state in updates],
            "validation batch": [state.val_loss for state in updates],
        },
        index=[state.step for state in updates],
    )
    left, right = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=(2, 3))[1]
    left.plot(losses.rolling(15, min_periods=1).mean(), label=losses.columns)
    left.set(title="Losses of the hypernet", xlabel="update (mean of the last 15)")
    left.set_ylabel("cross-entropy")
    left.legend()
    groups = [(len(epochs), "hypernet, after each epoch"), (config.N, "hypernet, pairs fixed")]
    if config.selection == "successive_halving":
        groups += [(k, f"{k} candidates, {n} epochs") for k, n in config.rungs]
    scores, start = epochs + selected, 0
    for (size, name), colour in zip(groups, COLOURS, strict=False):
        places = range(start, min(start + size, len(scores)))
        if places:
            right.plot(places, [scores[k] for k in places], "o", ms=4.5, color=colour, label=name)
        start += size
    right.set(title="Scores on validation, in order", ylabel=metric, ylim=(0, 1.02), xticks=[])
    right.grid(axis="x", visible=False)
    right.legend(loc="lower right", fontsize=9, handletextpad=0.2)
    return left, right


def draw_scores(scores: pd.Series, title: str, metric: str):
    """Test scores of networks as bars, best on top: (networks,), the learned one in blue."""
    bars = scores[::-1]
    colours = [SEARCHED if name == "learned by BM-NAS" else GREY for name in bars.index]
    ax = plt.subplots(figsize=(8.6, 0.6 + 0.32 * len(bars)))[1]
    ax.barh(bars.index, bars, color=colours)
    ax.set(title=title, xlabel=f"{metric} on test", xlim=(0, 1))
    ax.grid(axis="y", visible=False)
    return ax
