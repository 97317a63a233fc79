"""Genotypes: what is legal, how files are read, when two are the same architecture."""

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import genotypes

from bmnas_core import (
    CellGenotype,
    Change,
    FusionNetwork,
    Genotype,
    GenotypeError,
    StepGenotype,
    count_parameters,
    draw,
)
from bmnas_core.genotype import MOTIFS, OPERATIONS

TEXT = """{"format": "bmnas-genotype/1",
 "features": ["Image_1", "Image_2", "Audio_1"],
 "cells": [{"inputs": ["Image_2", "Audio_1"],
            "steps": [{"op": "attention", "inputs": ["X", "Y"]},
                      {"op": "linear_glu", "inputs": ["X", "S1"]}]},
           {"inputs": ["Audio_1", "C1"],
            "steps": [{"op": "sum", "inputs": ["X", "Y"]}]}]}
"""


def changed(**changes) -> str:
    """TEXT with the value at each dotted place replaced, or removed where it is ``...``."""
    data = json.loads(TEXT)
    for place, value in changes.items():
        *path, last = (int(k) if k.isdigit() else k for k in place.split("__"))
        target = data
        for key in path:
            target = target[key]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return json.dumps(data)


# --- what is accepted works everywhere


@settings(max_examples=30)
@given(genotypes())
def test_whatever_is_accepted_round_trips(genotype):
    assert Genotype.from_json(genotype.to_json()) == genotype


@settings(max_examples=20)
@given(genotypes(max_cells=3, max_steps=3))
def test_whatever_is_accepted_builds_runs_learns_and_path_samples(genotype):
    channels = {name: 2 + i for i, name in enumerate(genotype.features)}
    net = FusionNetwork(genotype, channels, classes=3, C=4, L=4, dropout=0.0)
    features = {name: torch.randn(3, c, 4) for name, c in channels.items()}
    logits = net(features)
    assert logits.shape == (3, 3)
    logits.square().sum().backward()
    # A step that nothing reads learns nothing; the Cells' norms always do.
    assert all(cell.output.ln.weight.grad is not None for cell in net.cells)
    assert draw(genotype).svg.startswith("<svg")


def test_the_text_is_laid_out_for_people():
    assert Genotype.from_json(TEXT).to_json() == TEXT


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "genotype.json"
    genotype = Genotype.from_json(TEXT)
    assert Genotype.load(genotype.save(path)) == genotype

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        Genotype.from_json(changed(cells__0__inputs__0="Image_1")).save(path)
    assert path.read_text() == TEXT
    assert os.listdir(tmp_path) == ["genotype.json"]


# --- what is refused says where, what and what else


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"line 1 column 1: found 'Expecting value'; allowed: a JSON document"),
        ("[1", r"line 1 column 3: found .*; allowed: a JSON document"),
        ('{"format": ' + "1" * 5000 + "}", r"document: found .*digits.*; allowed: a genotype"),
        ("[" * 100_000, r"document: found .*; allowed: a "),
        ("3", r"document: found 3; allowed: an object with 'format', 'features', 'cells'"),
        (changed(format="bmnas-genotype/2"), r"format: found 'bmnas-genotype/2'; allowed: 'bmnas"),
        (changed(format=...), r"document: found 'no field format'; allowed: fields 'format'"),
        (changed(colour="red"), r"document: found 'field colour'; allowed: fields"),
        ('{"format": 1, "format": 1}', r"document: found 'field format twice'; allowed: each"),
        (changed(features=[]), r"features: found \[\]; allowed: at least one feature name"),
        (changed(features="Image_1"), r"features: found 'Image_1'; allowed: a list"),
        (changed(features__1=3), r"features\[1\]: found 3; allowed: a printable name"),
        (changed(features__1=" "), r"features\[1\]: found ' '; allowed: a printable name"),
        (changed(features__1="a\nb"), r"features\[1\]: found 'a\\nb'; allowed: a printable name"),
        (changed(features__1="C2"), r"features\[1\]: found 'C2'; allowed: names other than C1"),
        (changed(features__1="Image_1"), r"features\[1\]: found 'Image_1'; allowed: each name"),
        (changed(cells=[]), r"cells: found \[\]; allowed: at least one Cell"),
        (changed(cells={}), r"cells: found \{\}; allowed: a list"),
        (changed(cells__0=[]), r"cells\[0\]: found \[\]; allowed: an object"),
        (changed(cells__0__steps=[]), r"cells\[0\].steps: found \[\]; allowed: at least one step"),
        (changed(cells__0__inputs=["Image_1"]), r"cells\[0\].inputs: found \['Image_1'\]; .* two"),
        (
            changed(cells__0__inputs__1="Audio_9"),
            r"cells\[0\].inputs\[1\]: found 'Audio_9'; allowed: 'Image_1', 'Audio_1'$",
        ),
        (
            changed(cells__0__inputs__1="C1"),
            r"cells\[0\].inputs\[1\]: found 'C1'; allowed: 'Image_1', 'Audio_1'$",
        ),
        (
            changed(cells__1__inputs=["C1", "C1"]),
            r"cells\[1\].inputs\[1\]: found 'C1'; allowed: 'Image_1', 'Image_2', 'Audio_1'$",
        ),
        (changed(cells__0__inputs__0=["C1"]), r"cells\[0\].inputs\[0\]: found \['C1'\]; allowed"),
        (
            changed(cells__1__steps__0__op="product"),
            r"cells\[1\].steps\[0\].op: found 'product'; allowed: 'zero', 'sum', 'attention'",
        ),
        (changed(cells__0__steps__1__op=7), r"cells\[0\].steps\[1\].op: found 7; allowed: 'zero'"),
        (changed(cells__0__steps__1__op=...), r"cells\[0\].steps\[1\]: found 'no field op'"),
        (
            changed(cells__1__steps__0__inputs__1="S1"),
            r"cells\[1\].steps\[0\].inputs\[1\]: found 'S1'; allowed: 'Y'$",
        ),
        (
            changed(cells__0__steps__1__inputs=["S2", "X"]),
            r"cells\[0\].steps\[1\].inputs\[0\]: found 'S2'; allowed: 'X', 'Y', 'S1'$",
        ),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_place(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(GenotypeError, match=message) as caught:
        Genotype.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(GenotypeError, match=r"none.json: file: found 'nothing there'"):
        Genotype.load(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"format": "\xe9"}')
    with pytest.raises(GenotypeError, match=r"latin.json: byte 12: found 'no UTF-8'"):
        Genotype.load(tmp_path / "latin.json")
    with pytest.raises(GenotypeError, match=r"allowed: a readable file"):
        Genotype.load(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["format", "features", "cells", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
PLACES = [
    "format", "features", "features__1", "cells", "cells__0", "cells__0__inputs",
    "cells__0__inputs__1", "cells__0__steps", "cells__0__steps__1", "cells__0__steps__1__op",
    "cells__0__steps__1__inputs", "cells__1__steps__0__inputs__0",
]  # fmt: skip


@settings(max_examples=200)
@given(st.sampled_from(PLACES), json_values)
def test_any_value_anywhere_is_accepted_or_refused_and_never_crashes(place, value):
    try:
        genotype = Genotype.from_json(changed(**{place: value}))
    except GenotypeError:
        return
    assert Genotype.from_json(genotype.to_json()) == genotype


@settings(max_examples=100)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_any_text_is_accepted_or_refused_and_never_crashes(text):
    with pytest.raises(GenotypeError):
        Genotype.from_json(text)


def test_cells_and_steps_of_another_type_are_refused():
    with pytest.raises(GenotypeError, match=r"cells\[0\]: found 'sum'; allowed: a CellGenotype"):
        Genotype(("A", "B"), ("sum",))
    with pytest.raises(GenotypeError, match=r"steps\[0\]: found 'sum'; allowed: a StepGenotype"):
        Genotype(("A", "B"), (CellGenotype(("A", "B"), ("sum",)),))


# --- the same architecture


def relabelled(genotype: Genotype, cell_order: list[int]) -> Genotype | None:
    """The genotype with its Cells listed in another order, or None where that order is illegal."""
    new = {f"C{old + 1}": f"C{k + 1}" for k, old in enumerate(cell_order)}
    cells = [
        CellGenotype(
            tuple(new.get(n, n) for n in genotype.cells[i].inputs), genotype.cells[i].steps
        )
        for i in cell_order
    ]
    try:
        return Genotype(genotype.features, tuple(cells))
    except GenotypeError:
        return None


def swapped(genotype: Genotype) -> Genotype:
    """The genotype with both inputs of every symmetric operation swapped."""
    return Genotype(
        genotype.features,
        tuple(
            CellGenotype(
                cell.inputs,
                tuple(
                    StepGenotype(s.op, s.inputs[::-1] if OPERATIONS[s.op].symmetric else s.inputs)
                    for s in cell.steps
                ),
            )
            for cell in genotype.cells
        ),
    )


@settings(max_examples=50)
@given(genotypes(), st.randoms())
def test_canonical_form_ignores_what_does_not_change_the_architecture(genotype, random):
    canonical = genotype.canonical()
    assert canonical.canonical() == canonical
    assert swapped(genotype).canonical() == canonical
    order = list(range(len(genotype.cells)))
    random.shuffle(order)
    other = relabelled(genotype, order)
    assert other is None or other.canonical() == canonical


@settings(max_examples=20)
@given(genotypes(max_cells=2, max_steps=2))
def test_canonical_form_keeps_size_and_features(genotype):
    channels = dict.fromkeys(genotype.features, 3)
    sizes = [
        count_parameters(FusionNetwork(g, channels, 2, C=4, L=2))
        for g in (genotype, genotype.canonical())
    ]
    assert sizes[0] == sizes[1]
    assert genotype.used_features == genotype.canonical().used_features


@pytest.mark.parametrize("n", [3, 9, 32])
def test_many_interchangeable_steps_are_put_in_order_at_once(n):
    first = [StepGenotype("attention", ("X", "Y"))] * n
    then = [StepGenotype("attention", (f"S{i + 1}", "X")) for i in range(n)]
    one = Genotype(("A", "B"), (CellGenotype(("A", "B"), (*first, *then)),))
    other = Genotype(("A", "B"), (CellGenotype(("A", "B"), (*first, *then[::-1])),))
    assert one.canonical() == other.canonical()
    assert one.cells[0].motif is None


def test_steps_that_differ_only_in_what_is_source_hash_them_are_told_apart():
    def cell(*last):
        steps = [("attention", ("X", "Y"))] * 2 + [("attention", pair) for pair in last]
        return Genotype(("A", "B"), (CellGenotype(("A", "B"), [StepGenotype(*s) for s in steps]),))

    one = cell(("S1", "X"), ("S1", "Y"), ("S2", "X"))
    assert one.canonical() == cell(("S2", "X"), ("S2", "Y"), ("S1", "X")).canonical()
    assert one.canonical() != cell(("S1", "X"), ("S1", "Y"), ("S1", "X")).canonical()


def test_a_genotype_has_a_largest_size():
    step = StepGenotype("sum", ("X", "Y"))
    with pytest.raises(GenotypeError, match=r"cells\[0\].steps: found '65 steps'; allowed"):
        Genotype(("A", "B"), (CellGenotype(("A", "B"), (step,) * 65),))
    with pytest.raises(GenotypeError, match="cells: found '65 Cells'; allowed: at most 64"):
        Genotype(("A", "B"), (CellGenotype(("A", "B"), (step,)),) * 65)
    largest = Genotype(("A", "B"), (CellGenotype(("A", "B"), (step,) * 64),) * 64)
    assert Genotype.from_json(largest.to_json()).canonical() == largest


def test_x_and_y_are_not_interchangeable():
    def one(inputs, steps):
        return Genotype(("A", "B"), (CellGenotype(inputs, steps),)).canonical()

    attention = (StepGenotype("attention", ("X", "Y")),)
    assert one(("A", "B"), attention) != one(("B", "A"), attention)
    total = (StepGenotype("sum", ("X", "Y")),)
    assert one(("A", "B"), total) != one(("B", "A"), total)


def test_known_motifs_are_named_whatever_their_order():
    for name, steps in MOTIFS.items():
        cell = CellGenotype(("A", "B"), tuple(StepGenotype(*step) for step in steps))
        assert cell.motif == name
    swapped_aoa = (StepGenotype("attention", ("X", "Y")), StepGenotype("linear_glu", ("S1", "X")))
    assert CellGenotype(("A", "B"), swapped_aoa).motif == "attention on attention"
    other = (StepGenotype("attention", ("Y", "X")),)
    assert CellGenotype(("A", "B"), other).motif is None


# --- what changed


def told(**changes) -> list[str]:
    """What :func:`changed` makes of TEXT is other than TEXT."""
    after = Genotype.from_json(changed(**changes))
    return [str(change) for change in after.changes_from(Genotype.from_json(TEXT))]


def step(op, *inputs) -> dict:
    return {"op": op, "inputs": list(inputs)}


@pytest.mark.parametrize(
    "changes, lines",
    [
        ({}, []),
        ({"cells__0__inputs__0": "Image_1"}, ["Cell 1 X: Image_2 → Image_1"]),
        (
            {"cells__1__inputs": ["C1", "Audio_1"]},
            ["Cell 2 X: Audio_1 → C1", "Cell 2 Y: C1 → Audio_1"],
        ),
        ({"cells__0__steps__0__op": "sum"}, ["Cell 1 S1 operation: Attention → Sum"]),
        (
            {"cells__0__steps__0__inputs": ["Y", "X"]},
            ["Cell 1 S1 1st input: X → Y", "Cell 1 S1 2nd input: Y → X"],
        ),
        ({"cells__0__steps__1__inputs": ["S1", "X"]}, []),
        ({"cells__1__steps__0__inputs": ["Y", "X"]}, []),
        ({"cells__0__steps__1__inputs": ["Y", "X"]}, ["Cell 1 S2 1st input: S1 → Y"]),
        ({"cells__0__steps__1__inputs": ["S1", "Y"]}, ["Cell 1 S2 2nd input: X → Y"]),
        (
            {"cells__0__steps__1": step("attention", "S1", "X")},
            ["Cell 1 S2 operation: LinearGLU → Attention"],
        ),
        (
            {"cells__1__steps": [step("sum", "X", "Y"), step("zero", "S1", "Y")]},
            ["Cell 2 S2: none → Zero(S1, Y)"],
        ),
        (
            {"cells__0__steps": [step("attention", "X", "Y")]},
            ["Cell 1 S2: LinearGLU(X, S1) → none"],
        ),
        ({"cells__1": ...}, ["Cell 2: (Audio_1, C1) → none"]),
    ],
)
def test_what_changed_is_told_by_place(changes, lines):
    assert told(**changes) == lines


def test_a_genotype_is_compared_with_a_genotype():
    with pytest.raises(GenotypeError, match="before: found 3; allowed: a Genotype"):
        Genotype.from_json(TEXT).changes_from(3)


def test_a_change_names_its_cell_its_step_and_what_it_is():
    before = Genotype.from_json(TEXT)
    after = Genotype.from_json(changed(cells__1__steps__0=step("attention", "Y", "X")))
    assert after.changes_from(before) == (Change(2, 1, "operation", "Sum", "Attention"),)
    after = Genotype.from_json(changed(cells__0__steps__0__inputs=["Y", "X"]))
    assert after.changes_from(before) == (
        Change(1, 1, "1st input", "X", "Y"),
        Change(1, 1, "2nd input", "Y", "X"),
    )
    cell = {"inputs": ["C1", "C2"], "steps": [step("sum", "X", "Y")]}
    more = json.loads(TEXT)
    more["cells"].append(cell)
    new = Genotype.from_json(json.dumps(more)).changes_from(before)
    assert new == (Change(3, None, "", "", "(C1, C2)"),)
    assert str(new[0]) == "Cell 3: none → (C1, C2)"


def plain(genotype: Genotype) -> list:
    """What stands in a genotype, the inputs of symmetric operations in the order of their names."""
    return [
        (
            cell.inputs,
            [
                (s.op, *(sorted(s.inputs) if OPERATIONS[s.op].symmetric else s.inputs))
                for s in cell.steps
            ],
        )
        for cell in genotype.cells
    ]


def turned(genotype: Genotype, random) -> Genotype:
    """The genotype with the inputs of some of its steps swapped, whatever their operations."""
    cells = []
    for cell in genotype.cells:
        steps = [StepGenotype(s.op, s.inputs[:: random.choice((1, -1))]) for s in cell.steps]
        cells.append(CellGenotype(cell.inputs, tuple(steps)))
    return Genotype(genotype.features, tuple(cells))


small = genotypes(features=["A", "B", "D"], max_cells=2, max_steps=2)


@settings(max_examples=150)
@given(small, small, st.randoms())
def test_nothing_changed_where_two_are_equal_up_to_the_order_of_symmetric_inputs(a, b, random):
    assert a.changes_from(a) == ()
    assert swapped(a).changes_from(a) == a.changes_from(swapped(a)) == ()
    for other in (b, turned(a, random)):
        assert (a.changes_from(other) == ()) == (plain(a) == plain(other))


@pytest.mark.slow
@settings(max_examples=150)
@given(small, small.flatmap(lambda g: st.just(g) | small), st.randoms())
def test_all_that_changed_is_told_and_nothing_else(before, after, random):
    before = turned(before, random)
    changes = after.changes_from(before)
    for i, (old, new) in enumerate(zip(before.cells, after.cells, strict=False), 1):
        cell = [(c.what, c.before, c.after) for c in changes if (c.cell, c.step) == (i, None)]
        ports = zip("XY", old.inputs, new.inputs, strict=True)
        assert cell == [(port, a, b) for port, a, b in ports if a != b]
        for j, (s, t) in enumerate(zip(old.steps, new.steps, strict=False), 1):
            mine = [c for c in changes if (c.cell, c.step) == (i, j)]
            assert (s.op != t.op) == any(c.what == "operation" for c in mine)
            inputs = [(c.what, c.before, c.after) for c in mine if c.what != "operation"]
            if OPERATIONS[s.op].symmetric or OPERATIONS[t.op].symmetric:
                assert {a for _, a, _ in inputs} == set(s.inputs) - set(t.inputs)
                assert {b for _, _, b in inputs} == set(t.inputs) - set(s.inputs)
            else:
                pairs = zip(("1st input", "2nd input"), s.inputs, t.inputs, strict=True)
                assert inputs == [(which, a, b) for which, a, b in pairs if a != b]
        whole = [c.step for c in changes if c.cell == i and c.step and not c.what]
        few, many = sorted([len(old.steps), len(new.steps)])
        assert whole == list(range(few + 1, many + 1))
    few, many = sorted([len(before.cells), len(after.cells)])
    whole = [c.cell for c in changes if c.step is None and not c.what]
    assert whole == list(range(few + 1, many + 1))
