"""Wrong answers to the exercises of notebook 07."""

from bmnas_core.baselines import with_motif

RIGHT = {
    "A": ("argmax", "perturbation after 7 epochs"),
    "B": ("perturbation", "default search"),
    "C": ("perturbation", "paper relaxation, perturbation"),
    "D": ("annealed softmax", "annealed Gumbel"),
    "E": ("perturbation", "perturbation after 7 epochs"),
}


def with_other_inputs(genotype):
    found = with_motif(genotype, "ConcatFC")
    return found.with_inputs([genotype.features[:2]])


WRONG = {
    "07.1": [lambda g: g, lambda g: with_motif(g, "Sum"), with_other_inputs, lambda g: g.to_json()],
    "07.2": [
        lambda a, b: a * b / ((a + b) * (a + b - 1)),
        lambda a, b: 2 * a * b / (a + b) ** 2,
        lambda a, b: 0.6,
    ],
    "07.3": [
        {"annealed softmax", "annealed Gumbel"},
        {"paper relaxation", "single paths"},
        {"single paths", "argmax"},
        {"random search"},
    ],
    "07.4": [lambda C: 2 * C**2 + C, lambda C: C**2 + 3 * C, lambda C: 2 * C],
    "07.5": [
        RIGHT | {"A": ("argmax", "perturbation")},
        RIGHT | {"D": ("argmax", "annealed Gumbel")},
        {"A": RIGHT["A"]},
        RIGHT | {"B": "perturbation"},
    ],
}
