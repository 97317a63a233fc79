"""Pictures of two to six modalities: text can be read, nothing overlaps, nothing is cut off."""

import io
import re
from dataclasses import replace
from functools import cache
from itertools import combinations
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text
from test_draw import SVG, parts, shown, state_for, tip

from bmnas_core import SearchHistory
from bmnas_core.baselines.architectures import random_genotype
from bmnas_core.draw import (
    canvas,
    draw,
    draw_comparison,
    draw_curves,
    draw_heatmaps,
    draw_trajectories,
)
from bmnas_core.runtime import generator

PAGE = 840  # pixels of JupyterLab's outputs on a small laptop
#: The least size of text on it. Two genotypes beside each other may shrink a little more.
LEGIBLE, COMPARED = 9, 8.7
SHORT = ("Image", "Audio", "Text", "Depth", "Pose", "Gaze")
LONG = ("Electrocardiogram", "Electroencephalogram", "Accelerometer", "Photoplethysmogram",
        "Questionnaire", "Clinical notes")  # fmt: skip

#: Number of modalities and of features of each, and their names.
KINDS = [(n, k, names) for n in (2, 3, 4, 6) for k in (1, 4) for names in (SHORT, LONG)]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k[0]}x{k[1]}-{k[2][0]}")


def features_of(kind) -> tuple[str, ...]:
    n, k, names = kind
    return tuple(f"{name}_{i}" for name in names[:n] for i in range(1, k + 1))


@cache
def pictures(kind):
    """Every kind of picture that graphviz renders, at the default number of Cells."""
    features, N = features_of(kind), max(2, kind[0] - 1)
    one, other = (random_genotype(features, N, 2, generator(k, "pictures")) for k in (0, 1))
    state = state_for(features, N, 2, "pair")
    return {
        "genotype": draw(one),
        "changed genotype": draw(one, against=other),
        "comparison": draw_comparison(one, other),
        "hypernet": draw(state),
        "weights": draw(state.weights),
        "heatmaps": draw_heatmaps(state),
    }


def box_of(group) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a node's outline; None for bare text."""
    for shape in group:
        if shape.tag == f"{SVG}ellipse":
            x, y, rx, ry = (float(shape.get(name)) for name in ("cx", "cy", "rx", "ry"))
            return x - rx, y - ry, x + rx, y + ry
        if shape.tag in (f"{SVG}path", f"{SVG}polygon"):
            numbers = re.findall(r"-?\d+\.?\d*", shape.get("d") or shape.get("points"))
            places = np.array(numbers, dtype=float).reshape(-1, 2)
            return (*places.min(0), *places.max(0))
    return None


def text_boxes(root):
    """Each text with a box that it surely fills."""
    for text in root.iter(f"{SVG}text"):
        size = float(text.get("font-size"))
        width = 0.8 * canvas.text_width(text.text, size)
        x, y = float(text.get("x")), float(text.get("y"))
        left = x - {"middle": width / 2, "end": width}.get(text.get("text-anchor"), 0)
        yield text.text, (left, y - 0.7 * size, left + width, y)


def overlap(a, b, by: float = 0.5) -> bool:
    sides = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return min(sides) > by


def inside(a, b, by: float = 1.0) -> bool:
    corners = zip(a[:2], b[:2], strict=True), zip(a[2:], b[2:], strict=True)
    return all(p >= q - by for p, q in corners[0]) and all(p <= q + by for p, q in corners[1])


@pytest.mark.slow
@kinds
def test_text_is_legible_on_a_page(kind):
    for name, drawn in pictures(kind).items():
        root = ElementTree.fromstring(drawn.svg)
        width = float(root.get("viewBox").split()[2])
        sizes = [float(text.get("font-size")) for text in root.iter(f"{SVG}text")]
        least = COMPARED if name == "comparison" else LEGIBLE
        if kind[0] == 2 and kind[2] is LONG:
            least = 8.7  # the hypernet's note
        assert min(sizes) * min(1, PAGE / width) >= least, (name, width)


@kinds
def test_no_two_nodes_overlap_and_every_text_is_inside_the_picture(kind):
    for name, drawn in pictures(kind).items():
        root = ElementTree.fromstring(drawn.svg)
        groups = parts(drawn, "node")
        boxes = {me: box for me, group in groups.items() if (box := box_of(group))}
        operations = re.compile(r"(c\d+_s\d+)_op\d+")
        for (a, one), (b, other) in combinations(boxes.items(), 2):
            owner = operations.fullmatch(a) or operations.fullmatch(b)
            if owner and owner[1] in (a, b):
                assert inside(boxes[owner[0]], boxes[owner[1]]), (name, a, b)
            else:
                assert not overlap(one, other), (name, a, b)
        _, _, width, height = map(float, root.get("viewBox").split())
        (x, y), (shown_x, shown_y) = origin(root), (0, 0)
        whole = shown_x - x, shown_y - y, width - x, height - y
        texts = list(text_boxes(root))
        for text, box in texts:
            assert inside(box, whole), (name, text)
        for (text, one), (other_text, other) in combinations(texts, 2):
            assert not overlap(one, other), (name, text, other_text)


def origin(root) -> tuple[float, float]:
    """Where the drawing's own origin is in the picture."""
    graph = next(g for g in root.iter(f"{SVG}g") if g.get("class") == "graph")
    moved = re.search(r"translate\(([\d.-]+)[ ,]([\d.-]+)\)", graph.get("transform"))
    return float(moved[1]), float(moved[2])


@kinds
def test_every_name_is_inside_its_block_and_every_block_inside_its_modality(kind):
    features = features_of(kind)
    for name in ("genotype", "hypernet"):
        drawn = pictures(kind)[name]
        nodes, clusters = parts(drawn, "node"), parts(drawn, "cluster")
        modalities = list(canvas.by_modality(features).values())
        for m, own in enumerate(modalities):
            assert tip(clusters[f"cluster_m{m}"]) == f"Modality {kind[2][m]}"
            for feature in own:
                group = nodes[f"f{features.index(feature)}"]
                assert shown(group) == feature
                assert inside(box_of(group), box_of(clusters[f"cluster_m{m}"]), 0)
                assert all(inside(box, box_of(group)) for _, box in text_boxes(group))


@kinds
def test_an_edge_from_a_feature_passes_over_no_other_feature(kind):
    features = features_of(kind)
    for name in ("genotype", "hypernet"):
        drawn = pictures(kind)[name]
        nodes = parts(drawn, "node")
        boxes = {f"f{i}": box_of(nodes[f"f{i}"]) for i in range(len(features))}
        for me, group in parts(drawn, "edge").items():
            source, _, target = me.partition("-")
            if source not in boxes or target in boxes:
                continue
            numbers = re.findall(r"-?\d+\.?\d*", group.find(f"{SVG}path").get("d"))
            (x, y), (turn, level) = np.array(numbers, dtype=float).reshape(-1, 2)[[0, 3]]
            assert y == level
            for other, box in boxes.items():
                line = x, y - 0.1, turn, y + 0.1
                assert other == source or not overlap(line, box, 0), (name, me, other)


@pytest.mark.slow
def test_many_or_long_names_stand_below_each_other_and_two_modalities_do_not():
    for kind in KINDS:
        nodes = parts(pictures(kind)["genotype"], "node")
        lefts = {box_of(nodes[f"f{i}"])[0] for i in range(kind[0] * kind[1])}
        stacked = kind[0] > 3 or (kind[0] == 3 and kind[2] is LONG)
        assert len(lefts) == (1 if stacked else kind[0]), kind


@pytest.mark.parametrize("relaxation", ["pair", "paper"])
def test_the_heatmap_of_many_features_has_every_weight_once(relaxation):
    kind = (6, 4, SHORT)
    features, N = features_of(kind), 5
    state = state_for(features, N, 2, relaxation)
    drawn = draw_heatmaps(state)
    nodes, weights = parts(drawn, "node"), state.weights
    rows = (*features, "C1", "C2", "C3", "C4")
    assert [shown(nodes[f"c0_0_r{r}"]) for r in range(len(rows))] == list(rows)
    heights = {r: nodes[f"c0_0_r{r}"].find(f"{SVG}text").get("y") for r in range(len(rows))}
    for i in range(N):
        names, *columns = weights.cell_edges(i)
        cell = state.genotype.cells[i]
        columns = columns[:1] if relaxation == "paper" else columns
        assert shown(nodes[f"c{i}_0_t"]) == f"Cell {i + 1}"
        for k, values in enumerate(columns):
            for r, (name, p) in enumerate(zip(names, values, strict=True)):
                box = nodes[f"c{i}_0_{k}_{r}"]
                assert shown(box) == f"{p:.2f}".removeprefix("0") and f"{name} {p:.3f}" in tip(box)
                assert box.find(f"{SVG}text").get("y") == heights[r]
                taken = cell.inputs if relaxation == "paper" else [cell.inputs[k]]
                framed = box.find(f"{SVG}polygon").get("stroke") == canvas.INK.lower()
                assert framed == (name in taken)
    boxes = [me for me in nodes if re.fullmatch(r"c\d_0_\d_\d+", me)]
    assert len(boxes) == sum(24 + i for i in range(N)) * len(columns)
    assert float(ElementTree.fromstring(drawn.svg).get("height")) < 1400


# --- charts


def a_history(kind, states: int = 6) -> SearchHistory:
    features, N = features_of(kind), max(2, kind[0] - 1)
    start = state_for(features, N, 2, "pair")
    about = {"task": "many", "rule": None, "metric": "accuracy", "seed": 0}
    config = {"operations": [*start.weights.operations], "relaxation": "pair"}
    about |= {"config": config | {"selection": start.selection}, "features": [*features]}
    history = SearchHistory(about)
    for step in range(states):
        state = state_for(features, N, 2, "pair", step)
        losses = {"train_loss": 1 / (step + 1), "val_loss": 2 / (step + 1), "val_score": step / 9}
        history.append(replace(start, step=step, weights=state.weights, **losses))
    return history


@pytest.mark.slow
@pytest.mark.parametrize("kind", [(6, 1, LONG), (6, 4, LONG)], ids=["6x1", "6x4"])
def test_names_beside_lines_are_legible_and_inside_the_figure(kind):
    history = a_history(kind)
    for of in ("alpha", "beta", "gamma"):
        panels = np.ravel(draw_trajectories(history, of))
        figure = panels[0].figure
        figure.savefig(io.BytesIO(), format="png")
        inches = figure.get_size_inches()
        for panel in panels:
            boxes = sorted(map(Text.get_window_extent, panel.texts), key=lambda box: box.y0)
            assert all(a.y1 <= b.y0 + 0.5 for a, b in zip(boxes, boxes[1:], strict=False))
            assert all(box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
            points = min(text.get_fontsize() for text in panel.texts)
            assert points / 72 * PAGE / max(inches[0], PAGE / 100) >= LEGIBLE
        assert inches[1] <= 20
        plt.close(figure)


@kinds
def test_curves_do_not_depend_on_the_number_of_modalities(kind):
    root = ElementTree.fromstring(draw_curves(a_history(kind)).svg)
    assert float(root.get("width")) < PAGE


# --- colours

#: What people with protanopia and deuteranopia see of linear RGB (Machado et al. 2009).
MACHADO = {
    "trichromacy": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB in Oklab (Ottosson 2020), where distances are those that people see."""
    lms = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                    [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]]) @ rgb  # fmt: skip
    return np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                     [1.9779984951, -2.4285922050, 0.4505937099],
                     [0.0259040371, 0.7827717662, -0.8086757660]]) @ np.cbrt(lms)  # fmt: skip


@pytest.mark.parametrize("sight", MACHADO)
def test_six_modalities_have_colours_that_can_be_told_apart(sight):
    borders = [border for border, _ in canvas.MODALITIES]
    assert len(borders) == 6
    seen = [
        oklab(np.clip(np.array(MACHADO[sight]) @ linear(border), 1e-6, 1)) for border in borders
    ]
    apart = [float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)]
    assert min(apart) > 0.07, sight


def test_the_names_of_modalities_have_the_contrast_of_text():
    for border, fill in canvas.MODALITIES:
        on_white, on_fill = (
            (linear(ground) @ [0.2126, 0.7152, 0.0722] + 0.05)
            / (linear(ink) @ [0.2126, 0.7152, 0.0722] + 0.05)
            for ground, ink in (("#FFFFFF", border), (fill, canvas.INK))
        )
        assert on_white >= 4.2 and on_fill >= 7
