"""Wrong answers to the exercises of notebook 00."""

import bmnas_core as bm

FEATURES = tuple(f"{name}_{k}" for name in ("Image", "Audio") for k in (1, 2, 3, 4))
LAST = ("Image_4", "Audio_4")


def genotype(*pairs: tuple[str, str], op: str = "concat_fc") -> bm.Genotype:
    """Cells of one step each."""
    step = bm.StepGenotype(op, ("X", "Y"))
    return bm.Genotype(FEATURES, tuple(bm.CellGenotype(pair, (step,)) for pair in pairs))


def equal_digits_allowed(pair):
    return max(pair.written, pair.spoken) if pair.speed > 175 else min(pair.written, pair.spoken)


def at_least(pair):
    if pair.written == pair.spoken:
        return None
    return max(pair.written, pair.spoken) if pair.speed >= 175 else min(pair.written, pair.spoken)


def the_other_way_round(pair):
    if pair.written == pair.spoken:
        return None
    return min(pair.written, pair.spoken) if pair.speed > 175 else max(pair.written, pair.spoken)


WRONG = {
    "00.1": [1 / 28, 0.061, 0.0613, 5.93],
    "00.2": [
        {"Audio_3"}, {"Audio_2", "Audio_3"}, {"Audio_1", "Audio_2", "Audio_3", "Audio_4"},
        {"Audio_4"}, "Audio_3", {"Image_4", "Audio_3"},
    ],
    "00.3": [lambda p: p, lambda p: (1 + p) / 2, lambda p: p + (1 - p) / 19, lambda p: 0.9 * p],
    "00.4": [
        genotype(("Image_4", "Audio_3")),
        genotype(LAST, ("C1", "Audio_4")),
        genotype(LAST, ("C1", "Image_3")),
        genotype(LAST, ("Image_4", "Audio_2")),
        genotype(("Image_4", "Audio_3"), ("C1", "Audio_2")),
        genotype(LAST, ("C1", "Audio_2"), op="sum"),
    ],
    "00.5": [equal_digits_allowed, at_least, the_other_way_round],
}  # fmt: skip
