"""Wrong answers to the exercises of notebook 05."""

from bmnas_core import CellGenotype, Genotype, StepGenotype

FEATURES = [f"{modality}_{i}" for modality in ("Image", "Audio") for i in (1, 2, 3)]
XY, YX = ("X", "Y"), ("Y", "X")


def cell(inputs, *steps):
    return CellGenotype(inputs, tuple(StepGenotype(op, pair) for op, pair in steps))


def network(*cells):
    return Genotype(FEATURES, cells)


PAIR, ASKING = ("Image_3", "Audio_3"), ("Audio_2", "Image_3")
AOA = ("attention", XY), ("linear_glu", ("X", "S1"))
ADD, ADD_SWAPPED, ATTEND = cell(PAIR, ("sum", XY)), cell(PAIR, ("sum", YX)), cell(PAIR, AOA[0])
OTHER = cell(("Image_1", "Audio_1"), ("sum", XY))

WRONG = {
    "05.1": [1, 3, 1.5, "2"],
    "05.2": [lambda M: M, lambda M: 2 ** (M - 1), lambda M: M + 1, 3],
    "05.3": [75, 120, 180, 240, 30 * 8],
    "05.4": [
        network(cell(ASKING[::-1], *AOA)),
        network(cell(PAIR, *AOA)),
        network(cell(ASKING, ("attention", YX), ("linear_glu", ("Y", "S1")))),
        network(cell(ASKING, ("attention", XY), ("attention", XY))),
        network(cell(ASKING, ("sum", XY), ("linear_glu", ("X", "S1")))),
        network(cell(ASKING, *AOA), OTHER),
        cell(ASKING, *AOA),
    ],
    "05.5": [
        network(ADD, OTHER),
        (network(ADD, OTHER), network(ADD, OTHER)),
        (network(ADD, OTHER), network(ADD_SWAPPED, OTHER)),
        (network(ADD, OTHER), network(OTHER, ATTEND)),
        (network(ADD), network(ADD_SWAPPED)),
        (network(ADD, OTHER), Genotype(FEATURES[::-1], (OTHER, ADD))),
        (ADD, OTHER),
    ],
    "05.6": [
        (network(ADD), network(ADD)),
        (network(ADD), network(ADD_SWAPPED)),
        (network(ADD), network(ATTEND)),
        (network(ADD), network(OTHER)),
        (network(ADD, OTHER), network(OTHER, ADD)),
        (network(ADD),),
    ],
}
