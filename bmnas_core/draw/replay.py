"""A search as one HTML file that plays without a kernel and without a network.

All frames of a picture have the same elements, so the page holds the first frame whole and of the
others only the attributes and texts that differ. Genotypes differ in their elements and are kept
whole, each once. All of this is compressed.
"""

from __future__ import annotations

import base64
import html
import json
import zlib
from pathlib import Path
from string import Template
from xml.etree import ElementTree

import numpy as np

from . import draw, draw_curves, draw_heatmaps
from .canvas import DrawError

TEMPLATE = Path(__file__).with_name("replay.html")


def page(history, frames: int) -> str:
    """A :class:`~bmnas_core.history.SearchHistory` as HTML, with up to ``frames`` of its states."""
    chosen = np.unique(np.linspace(0, len(history) - 1, frames).round().astype(int)).tolist()
    pictures = {"hypernet": _Frames(), "heatmaps": _Frames(), "curves": _Frames()}
    genotypes: dict[str, int] = {}
    shown = []
    for before, i in zip([chosen[0], *chosen], chosen, strict=False):
        state, last = history[i], history[before].genotype
        pictures["hypernet"].add(draw(state).svg)
        pictures["heatmaps"].add(draw_heatmaps(state).svg)
        pictures["curves"].add(draw_curves(history, at=state.step).svg)
        svg, _ = _without_ids(draw(state.genotype, against=last).svg)
        changes = [str(change) for change in state.genotype.changes_from(last)]
        number = genotypes.setdefault(svg, len(genotypes))
        shown.append({"text": str(state), "genotype": number, "changes": changes})
    payload = {
        "pictures": {name: {"svg": p.svg, "frames": p.frames} for name, p in pictures.items()},
        "genotypes": list(genotypes),
        "frames": shown,
    }
    packed = zlib.compress(json.dumps(payload, ensure_ascii=False).encode(), 9)
    about, config = history.about, history.about["config"]
    rule = f", rule {about['rule']}" if about["rule"] else ""
    title = f"{about['task']}{rule}: relaxation {config['relaxation']}, seed {about['seed']}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title), payload=base64.b64encode(packed).decode(), last=len(shown) - 1
    )


class _Frames:
    """A picture's first frame, and what differs from it in each as [element, attribute, value, …].

    Elements are numbered in document order, the attribute ``""`` is an element's text, and the
    value None removes the attribute.
    """

    def __init__(self):
        self.svg, self.frames, self._first = "", [], []

    def add(self, svg: str) -> None:
        svg, root = _without_ids(svg)
        parts = [_attributes(e) for e in root.iter()]
        if not self.frames:
            self.svg, self._first = svg, parts
        if [p["tag"] for p in parts] != [p["tag"] for p in self._first]:
            raise DrawError("replay: found frames with other elements; allowed: the same in all")
        other: list = []
        for k, (old, new) in enumerate(zip(self._first, parts, strict=True)):
            for name in {**old, **new}:
                if old.get(name) != new.get(name):
                    other += [k, name, new.get(name)]
        self.frames.append(other)


def _without_ids(svg: str) -> tuple[str, ElementTree.Element]:
    """A picture without the ids that differ from frame to frame, as text and parsed."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.attrib.pop("id", None)
    return ElementTree.tostring(root, encoding="unicode"), root


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    tag = element.tag.rpartition("}")[2]
    own = {name: v for name, v in element.attrib.items() if not name.startswith("{")}
    return {**own, "": element.text or "", "tag": tag}
