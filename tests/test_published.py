"""Genotypes as the released code prints them: read as literals, written back, never evaluated."""

import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from strategies import genotypes

from bmnas_core import (
    DEFAULT_OPERATIONS,
    OPERATIONS,
    CellGenotype,
    Genotype,
    GenotypeError,
    StepGenotype,
    register_operation,
)

FEATURES = tuple(f"{name}_{i}" for name in ("Video", "Skeleton") for i in range(1, 5))
#: As the released code logs it: two Cells, the second of two steps.
LOGGED = (
    "12/03 10:04:23 PM Genotype(edges=[('skip', 3), ('skip', 7), ('skip', 2), ('skip', 8)], "
    "steps=[StepGenotype(inner_edges=[('skip', 1), ('skip', 0)], inner_steps=['LinearGLU'], "
    "inner_concat=[2]), StepGenotype(inner_edges=[('skip', 0), ('skip', 1), ('skip', 2), "
    "('skip', 0)], inner_steps=['ScaleDotAttn', 'ConcatFC'], inner_concat=[2, 3])], "
    "concat=[8, 9])\n12/03 10:04:23 PM Current best dev F1: 0.0, at epoch: 0\n"
)
STEPS = (
    (StepGenotype("linear_glu", ("Y", "X")),),
    (StepGenotype("attention", ("X", "Y")), StepGenotype("concat_fc", ("S1", "X"))),
)


def test_a_line_of_the_released_codes_log_is_read():
    found = Genotype.from_published(LOGGED, FEATURES)
    inputs = ("Video_4", "Skeleton_4"), ("Video_3", "C1")
    cells = tuple(map(CellGenotype, inputs, STEPS))
    assert found == Genotype(FEATURES, cells)
    assert Genotype.from_published(LOGGED * 3, list(FEATURES)) == found


def test_the_first_versions_names_of_operations_are_read():
    old = LOGGED.replace("LinearGLU", "cat_conv_glu").replace("ScaleDotAttn", "scale_dot_attn")
    old = old.replace("ConcatFC", "cat_conv_relu")
    assert Genotype.from_published(old, FEATURES) == Genotype.from_published(LOGGED, FEATURES)


def test_the_text_is_written_as_it_was_read():
    start, end = LOGGED.index("Genotype("), LOGGED.index("\n")
    assert Genotype.from_published(LOGGED, FEATURES).to_published() == LOGGED[start:end]


@pytest.mark.slow
@given(genotypes())
def test_what_is_written_is_read_again(genotype):
    used = {step.op for cell in genotype.cells for step in cell.steps}
    assume(used <= set(DEFAULT_OPERATIONS))
    assert Genotype.from_published(genotype.to_published(), genotype.features) == genotype


def test_an_operation_that_the_released_code_has_not_is_not_written():
    with OPERATIONS.restored():

        @register_operation("swap", label="Swap")
        class Swap(torch.nn.Module):
            def __init__(self, C, L, dropout):
                super().__init__()

            def forward(self, x, y):
                return y

        cell = CellGenotype(("Video_1", "Video_2"), (StepGenotype("swap", ("X", "Y")),))
        with pytest.raises(GenotypeError, match=r"cells\[0\].steps\[0\].op: found 'swap'; allowed"):
            Genotype(FEATURES, (cell,)).to_published()


def changed(old: str, new: str) -> str:
    assert old in LOGGED
    return LOGGED.replace(old, new)


WRONG = {
    "no text": (None, "text: found None; allowed: a text with one Genotype"),
    "nothing": ("", "text: found '0 different genotypes'; allowed: a text"),
    "cut short": (LOGGED[:200], "text: found '0 different genotypes"),
    "two": (LOGGED + changed("'LinearGLU'", "'Sum'"), "text: found '2 different genotypes"),
    "no Python": ("Genotype(edges=[1 2])", r"text: found 'no genotype \(invalid syntax"),
    "a call": (changed("('skip', 3)", "__import__('os').abort()"), "edges: found .*; allowed: num"),
    "a call in a list": (changed("['LinearGLU']", "[exit()]"), r"steps\[0\].inner_steps: found"),
    "a call for a Cell": (changed("StepGenotype(", "exec("), r"steps\[0\]: found .exec"),
    "unknown field": (changed("concat=[8, 9]", "conact=[8, 9]"), "genotype: found .*; allowed: Ge"),
    "field twice": (changed(" concat=", " edges="), "genotype: found .Genotype"),
    "no field": (changed(", concat=[8, 9]", ""), "genotype: found .*; allowed: Genotype"),
    "an edge missing": (
        changed("('skip', 2), ('skip', 8)", "('skip', 2)"),
        ".*4 edges, two",
    ),
    "an edge too far": (changed("('skip', 8)", "('skip', 9)"), r"edges\[3\]: found .*'skip', 0…8"),
    "no edge": (changed("('skip', 3)", "('none', 3)"), r"edges\[0\]: found \('none', 3\)"),
    "True for a number": (changed("('skip', 3)", "('skip', True)"), r"edges\[0\]: found"),
    "twice the same": (
        changed("('skip', 7)", "('skip', 3)"),
        r"cells\[0\].inputs\[1\]: found 'V",
    ),
    "an operation": (
        changed("LinearGLU", "LinaerGLU"),
        "found 'Lin.* mean 'LinearGLU'",
    ),
    "another concatenation": (changed("[2, 3]", "[3]"), r"steps\[1\].inner_concat: found \[3\]; "),
    "some Cells": (changed("concat=[8, 9]", "concat=[9]"), r"concat: found \[9\]; allowed: \[8, 9"),
    "no Cell": (
        "Genotype(edges=[], steps=[], concat=[])",
        "steps: found .*; allowed: a list of",
    ),
    "a list as an operation": (changed("['LinearGLU']", "[['Sum']]"), r"found \['Sum'\]; allowed"),
    "a huge number": (
        changed("('skip', 3)", "('skip', 0x" + "f" * 20000 + ")"),
        "text: found 'a n",
    ),
    "too long": (LOGGED + " " * (1 << 20), "text: found '1,048,.*; allowed: at most 1,048,576"),
    "deep": ("Genotype(edges=" + "-" * 20000 + "1)", "text: found .very"),
}


@pytest.mark.parametrize("what", WRONG)
def test_another_text_is_refused_in_one_line(what):
    text, message = WRONG[what]
    with pytest.raises(GenotypeError, match=message) as error:
        Genotype.from_published(text, FEATURES)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_other_features_than_the_networks_are_refused():
    with pytest.raises(GenotypeError, match=r"edges\[1\]: found \('skip', 7\); allowed"):
        Genotype.from_published(LOGGED, FEATURES[:6])
    with pytest.raises(GenotypeError, match=r"concat: found \[8, 9\]; allowed: \[9, 10\]"):
        Genotype.from_published(LOGGED, (*FEATURES, "Text_1"))
    assert Genotype.from_published(LOGGED, np.array(FEATURES)).features == FEATURES
    for features in (3, "Video"):
        with pytest.raises(GenotypeError, match="features: found .*; allowed: a"):
            Genotype.from_published(LOGGED, features)
    with pytest.raises(GenotypeError, match=r"features\[1\]: found 'a'; allowed: each name once"):
        Genotype.from_published(LOGGED, ["a", "a"])


HOSTILE = ["Genotype(" * 100_000, "(" * 1_000_000, "Genotype()" * 100_000]
HOSTILE += ["Genotype(" * 50_000 + ")" * 50_000, "(" * 500_000 + "Genotype()" * 50_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(GenotypeError):
        Genotype.from_published(text, FEATURES)
    assert time.perf_counter() - start < 10
