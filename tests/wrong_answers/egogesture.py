"""Wrong answers to the exercises of notebook 12."""

import bmnas_core as bm
from bmnas_core.course.exercises.egogesture import FEATURES
from bmnas_core.course.paper_tasks import genotype_of

SUM = ("sum", "X", "Y")


def genotype(*pairs, features=FEATURES):
    return genotype_of(features, *((*pair, SUM) for pair in pairs))


WRONG = {
    "12.1": [
        {"S1": (1, 1), "S2": (2, 1), "S3": (1, 2)},
        {"S1": (1, 1), "S2": (1, 2), "S3": (2, 2)},
        {"S1": (1, 1), "S2": (2, 1)},
        [(1, 1), (2, 1), (2, 2)],
        {"S1": (1, 1, 1), "S2": 2, "S3": None},
    ],
    "12.2": [lambda frames, k: frames // 2**k, lambda frames, k: 8, lambda frames, k: frames // 4],
    "12.3": [
        lambda lengths: 64 * len(lengths),
        lambda lengths: 2 * sum(lengths),
        lambda lengths: sum(min(n, 32) for n in lengths),
    ],
    "12.4": [
        genotype(("RGB_1", "RGB_2"), ("Depth_1", "Depth_2")),
        genotype(("RGB_1", "Depth_1")),
        genotype(("RGB_1", "Depth_1"), ("RGB_4", "Depth_4")),
        genotype(("RGB_1", "Depth_1"), ("RGB_1", "Depth_2")),
        genotype(("Image_1", "Audio_1"), features=("Image_1", "Audio_1")),
        bm.CellGenotype(("RGB_1", "Depth_1"), ()),
    ],
    "12.5": ["a", "a and b", "a or b", "xor"],
}
