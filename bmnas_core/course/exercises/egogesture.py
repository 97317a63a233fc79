"""Exercises of notebook 12, EgoGesture."""

from collections.abc import Mapping

from ...genotype import Genotype, StepGenotype
from ...tasks.paper.egogesture import COLOURS
from ..checks import exercise
from ..paper_tasks import multiples
from . import answers

#: The Sums of exercise 12.1.
SUMS = [("X", "Y"), ("X", "S1"), ("Y", "S2")]
FEATURES = tuple(f"{name}_{i}" for name in COLOURS for i in range(1, 5))


@exercise(
    "12.1",
    "S1 is 1 · X + 1 · Y. Put it into S2.",
    "S2 adds X to S1, and S3 adds Y to S2. Add up how often X and Y occur.",
)
def three_sums(answer):
    if not isinstance(answer, Mapping):
        return f"A dict is asked for, and this is {answers.kind(answer)}."
    right = multiples(StepGenotype("sum", pair) for pair in SUMS)
    for name in ("S1", "S2", "S3"):
        found = answer.get(name)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            return f"For {name} a pair of numbers is asked for, as (1, 0) for X."
        if any(answers.as_number(n) != m for n, m in zip(found, right[name], strict=True)):
            return f"{name} is not {found[0]} · X + {found[1]} · Y."
    return None


@exercise(
    "12.2",
    "The first convolution keeps all frames, the max-pool behind it halves their number, and so "
    "do stages 2, 3 and 4.",
    "Feature k is stage k + 1. After the max-pool and stage 2, every fourth frame is left.",
)
def moments_left(answer):
    cases = [(frames, k) for frames in (32, 16, 64) for k in (1, 2, 3)]
    return answers.function(answer, lambda frames, k: frames // 2 ** (k + 1), cases)


@exercise(
    "12.3",
    "A gesture shorter than 32 frames is repeated, but each of its pictures is read once.",
    "Of a longer one only 32 are read. There are two modalities.",
)
def pictures_read(answer):
    cases = [([32],), ([20, 40],), ([3, 32, 33, 180, 31],), ([],)]
    return answers.function(answer, lambda lengths: 2 * sum(min(n, 32) for n in lengths), cases)


@exercise(
    "12.4",
    "The features of one modality end in _1 to _4, from early to late.",
    "A Cell whose inputs are both of RGB, or both of Depth, joins nothing.",
    "Two Cells may not have the same pair. `paper_tasks.genotype_of` builds it.",
)
def fuses_early(answer):
    if wrong := answers.instance(answer, Genotype):
        return wrong
    if answer.features != FEATURES:
        return "Its features are not those of the task, in the task's order."
    if len(answer.cells) != 2:
        return f"It has {len(answer.cells)} Cells, not two."
    if late := [name for name in answer.used_features if name[-1] not in "12"]:
        return f"It reads {late[0]}, which is not early."
    if len(answer.used_features) < 4:
        return "It does not read all four early features."
    for i, cell in enumerate(answer.cells, 1):
        if len({name.split("_")[0] for name in cell.inputs}) < 2:
            return f"Cell {i} does not join the modalities."
    return None


#: Labels of two bits a and b that one can ask for, and the bits for which each is 1.
LABELS = {
    "a": lambda a, b: a,
    "a and b": lambda a, b: a and b,
    "a or b": lambda a, b: a or b,
    "a differs from b": lambda a, b: a != b,
}


@exercise(
    "12.5",
    "Write down f(a) + g(b) for all four combinations of a and b, and where it must be positive.",
    "Add up f(a) + g(b) for (0, 0) and (1, 1), and for (0, 1) and (1, 0). What do you notice?",
)
def no_late_fusion(answer):
    return answers.word(answer, "a differs from b", tuple(LABELS))
