"""Exercises of notebook 01, backbones."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from ...backbones.backbone import ConvBackbone
from ...networks import pool
from ...probe import probe
from ...tasks import Task, load_task
from ...tasks.digits import clips
from ..checks import exercise
from . import answers

#: Feature → shape (C, …) of the task that is asked for.
SHAPES = {"Text_1": (300,), "Video_1": (64, 8), "Sound_1": (16, 32), "Sound_2": (32, 8)}


@cache
def receptive_field(side: int = 64) -> int:
    """How many pixels, along one axis, a value of the third block depends on, by autograd."""
    backbone = ConvBackbone()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)  # positive: no gradients cancel, no ReLU is at zero
    for block in backbone.blocks:
        block[3] = nn.AvgPool2d(2)  # a maximum depends on all values, its gradient only on one
    x = torch.ones(1, 1, side, side, requires_grad=True)
    last = backbone.eval()(x)[-1]
    middle = last.shape[-1] // 2
    (gradient,) = torch.autograd.grad(last[0, 0, middle, middle], x)
    return int((gradient[0, 0] != 0).any(0).sum())


@exercise(
    "01.1",
    "Begin with one value of block 3 and walk back, layer by layer: which stretch of the layer "
    "before does a stretch of n values need?",
    "Pooling makes 2n of n. A convolution with a kernel of 3 needs one value more on each side.",
)
def pixels_seen(answer):
    return answers.number(answer, receptive_field())


@exercise(
    "01.2",
    "H is `rows` patches of H // rows pixels each. `reshape` can make two axes of one: the number "
    "of the patch, and the place within it.",
    "With both axes cut in two the feature has six. The maximum runs over the two places within a "
    "patch; `amax` takes several axes at once.",
    "Positions come in reading order: `flatten(2)` does this.",
)
def pool_to_a_grid(answer):
    sizes = (((2, 3, 8, 8), 2, 2), ((1, 5, 4, 12), 2, 3), ((3, 2, 6, 6), 1, 2))
    cases = [(answers.random_tensor(*shape), rows, columns) for shape, rows, columns in sizes]

    def expected(feature: Tensor, rows: int, columns: int) -> Tensor:
        return pool(feature, rows * columns)  # the squarest grid is rows × columns in all cases

    return answers.function(answer, expected, cases)


@exercise(
    "01.3",
    "Fix the written digit, say 4. Which sums are possible, and how likely is each?",
    "Whichever of them the classifier answers, how often is it right?",
)
def best_under_sum(answer):
    return answers.number(answer, 1 / 10, 1e-9)


@cache
def voice() -> Task:
    """``digits`` under the rule *voice*."""
    return load_task("digits", rule="voice")


def probe_of_speed() -> dict[str, float]:
    """What each audio feature tells of whether a clip is fast."""
    fast = torch.tensor([clip.speed > 175 for clip in clips()]).long()
    return probe(voice(), "Audio", fast)


@exercise(
    "01.4",
    "`clips()` describes all 1,200 clips, in the order of the Audio items. Section 5 makes a label "
    "of each clip's voice; make one of its speed.",
    "`bm.probe` wants the task of rule *voice* and a tensor of whole numbers, one for each clip.",
)
def is_speed_forgotten(answer):
    expected = probe_of_speed()
    if not isinstance(answer, Mapping):
        return (
            f"A dict from features to accuracies is asked for, and this is {answers.kind(answer)}."
        )
    if set(answer) != set(expected):
        return f"Its keys are not {', '.join(expected)}."
    for name, score in expected.items():
        if wrong := answers.number(answer[name], score, 0.02):
            return f"{name}: {wrong}"
    return None


@exercise(
    "01.5",
    "`bm.Task.from_features(name, features, labels)` takes a dict from modalities to arrays; the "
    "first axis of each array is the samples.",
    "A modality with two features gets a list of two arrays.",
    "Four classes: labels from 0 to 3, some of each in every split.",
)
def three_modalities(answer):
    if wrong := answers.instance(answer, Task):
        return wrong
    names = [modality.name for modality in answer.modalities]
    if set(names) != {"Text", "Video", "Sound"}:
        return f"Its modalities are {', '.join(names)}."
    found = {k: shape for modality in answer.modalities for k, shape in modality.shapes.items()}
    if set(found) != set(SHAPES):
        return f"Its features are {', '.join(found)}."
    for name, shape in SHAPES.items():
        if found[name] != shape:
            return f"A sample of {name} has the shape {found[name]}."
    return None if answer.classes == 4 else f"It has {answer.classes} classes."
