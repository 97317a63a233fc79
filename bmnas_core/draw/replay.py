"""A search as one HTML file that plays without a kernel and without a network.

All frames of a picture have the same elements, so the page holds the first frame whole and of the
others only the attributes and texts that differ. Genotypes differ in their elements and are kept
whole, each once. All of this is compressed.
"""

import base64
import html
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from string import Template
from xml.etree import ElementTree

from . import draw, draw_curves, draw_heatmaps
from .canvas import DrawError
from .curves import evenly
from .hypernets import fit_beside

TEMPLATE = Path(__file__).with_name("replay.html")


def page(history, frames: int) -> str:
    """A :class:`~bmnas_core.history.SearchHistory` as HTML, with up to ``frames`` of its states."""
    states = [history[i] for i in evenly(len(history), frames)]
    pictures = {
        "hypernet": _frames(draw(state).svg for state in states),
        "heatmaps": _frames(draw_heatmaps(state).svg for state in states),
        "curves": _frames(draw_curves(history, at=state.step).svg for state in states),
    }
    genotypes: dict[str, int] = {}
    shown = []
    for before, state in zip([states[0], *states], states, strict=False):
        svg, _ = _without_ids(draw(state.genotype, against=before.genotype).svg)
        changes = [str(change) for change in state.genotype.changes_from(before.genotype)]
        number = genotypes.setdefault(svg, len(genotypes))
        shown.append({"text": str(state), "genotype": number, "changes": changes})
    payload = {"pictures": pictures, "genotypes": list(genotypes), "frames": shown}
    packed = zlib.compress(json.dumps(payload, ensure_ascii=False).encode(), 9)
    about, config = history.about, history.about["config"]
    rule = f", rule {about['rule']}" if about["rule"] else ""
    title = f"{about['task']}{rule}: relaxation {config['relaxation']}, seed {about['seed']}"
    half = "" if fit_beside(draw(states[0]), draw_heatmaps(states[0])) else "wide"
    data = {"payload": base64.b64encode(packed).decode(), "last": len(shown) - 1}
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), half=half, **data)


def _frames(svgs: Iterable[str]) -> dict:
    """The first picture, and what differs from it in each as [element, attribute, value, …].

    Elements are numbered in document order, the attribute ``""`` is an element's text, and the
    value None removes the attribute.
    """
    frames: list[list] = []
    for svg, root in map(_without_ids, svgs):
        tags = [element.tag for element in root.iter()]
        parts = [{**element.attrib, "": element.text or ""} for element in root.iter()]
        if not frames:
            text, first, first_tags = svg, parts, tags
        if tags != first_tags:
            raise DrawError("replay", "frames with other elements", "the same in all")
        frames.append([])
        for k, (old, new) in enumerate(zip(first, parts, strict=True)):
            for name in {**old, **new}:
                if old.get(name) != new.get(name):
                    frames[-1] += [k, name, new.get(name)]
    return {"svg": text, "frames": frames}


def _without_ids(svg: str) -> tuple[str, ElementTree.Element]:
    """A picture without the ids that differ from frame to frame, as text and parsed."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.attrib.pop("id", None)
    return ElementTree.tostring(root, encoding="unicode"), root
