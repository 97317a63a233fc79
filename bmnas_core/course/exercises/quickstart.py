"""Exercises of notebook 00, quickstart."""

from functools import cache

import torch

from ...genotype import Genotype, cell_name
from ...probe import probe
from ...tasks import Task, load_task
from ...tasks.digits import clips
from ...tasks.rules import DigitPair, is_high
from ..checks import exercise
from . import answers

#: A probe that is right so often counts as knowing.
KNOWN = 0.9
LAST = {"Image_4", "Audio_4"}


@cache
def task() -> Task:
    """The task of the notebook."""
    return load_task("digits", rule="voice")


@cache
def complete() -> frozenset[str]:
    """Audio features that know both the digit and the voice."""
    audio = task().modality("Audio")
    high = torch.tensor([is_high(clip.voice) for clip in clips()]).long()
    digit, voice = (probe(task(), "Audio", labels) for labels in (audio.classes, high))
    return frozenset(name for name in digit if min(digit[name], voice[name]) >= KNOWN)


def constant_answer() -> float:
    """Test accuracy of always giving the class that is most frequent in train."""
    train, test = (task().split(split).labels for split in ("train", "test"))
    return float((test == train.bincount().argmax()).double().mean())


@exercise(
    "00.1",
    '`task.split("train").labels` holds the classes of all training pairs, and `.bincount()` '
    "counts them.",
    "Which class is most frequent is found on train. How often it is right is counted on test.",
)
def always_the_same(answer):
    return answers.number(answer, constant_answer(), 0.0005)


@exercise(
    "00.2",
    "Image_4 tells the written digit. Both other things must come from one audio feature.",
    "Read the heatmap of the probes column by column: both rows must be high enough.",
)
def enough_for_one_cell(answer):
    return answers.names(answer, complete(), task().features)


@exercise(
    "00.3",
    "Count two cases: the network knows the voice, or it does not.",
    "Suppose that it takes the voice to be the other one. For which spoken digit is its answer "
    "right all the same?",
)
def accuracy_without_the_voice(answer):
    cases = [(p / 10,) for p in range(5, 11)]
    return answers.function(answer, lambda p: p + (1 - p) / 10, cases)


@exercise(
    "00.4",
    "A Cell of one ConcatFC step is "
    '`bm.CellGenotype(inputs, (bm.StepGenotype("concat_fc", ("X", "Y")),))`.',
    'The output of Cell 1 is called "C1". Cell 2 may read it like a feature.',
    "What Cell 1 lacks is the voice. Exercise 2 says which features have it.",
)
def two_cells(answer):
    if wrong := answers.instance(answer, Genotype):
        return wrong
    if answer.features != task().features:
        return "Its features are not those of the task, `task.features`."
    if len(answer.cells) != 2:
        return f"Two Cells are asked for, not {len(answer.cells)}."
    for k, cell in enumerate(answer.cells, 1):
        if [step.op for step in cell.steps] != ["concat_fc"]:
            return f"Cell {k} is not a single ConcatFC step."
    first, second = (set(cell.inputs) for cell in answer.cells)
    if first != LAST:
        return f"Cell 1 does not read {' and '.join(sorted(LAST))}."
    if cell_name(0) not in second:
        return "Cell 2 does not read the output of Cell 1."
    return None if second & complete() else "Cell 2 reads nothing that tells the voice."


def larger_or_smaller(pair: DigitPair) -> int | None:
    """The rule that is asked for."""
    if pair.written == pair.spoken:
        return None
    return (max if pair.speed > 175 else min)(pair.written, pair.spoken)


@exercise(
    "00.5",
    "A pair has `.written`, `.spoken`, `.voice`, `.pitch` and `.speed`.",
    "A rule returns None for a pair that it does not allow.",
    "Exactly 175 words a minute is not faster than 175.",
)
def rule_of_speed(answer):
    known = ((3, 7, 200), (3, 7, 150), (7, 3, 176), (7, 3, 175), (5, 5, 200), (5, 5, 140))
    cases = [(DigitPair(w, s, "en-us+f3", 50, speed),) for w, s, speed in (*known, (0, 9, 131))]
    return answers.function(answer, larger_or_smaller, cases)
