"""A search as one HTML file that plays without a kernel or an internet connection.

It is drawn by ``stage.js``, as in a :class:`~bmnas_core.SearchStepper`, from numbers that are
compressed.
"""

import base64
import html
import json
import zlib
from pathlib import Path
from string import Template

from .curves import evenly
from .scene import SCRIPT, STYLE, SceneData

TEMPLATE = Path(__file__).with_name("replay.html")


def page(history, frames: int) -> str:
    """A :class:`~bmnas_core.history.SearchHistory` as HTML, with up to ``frames`` of its states."""
    states = [history[i] for i in evenly(len(history), frames)]
    data = SceneData(states[0], history.about)
    packed = zlib.compress(json.dumps(data.load(states), ensure_ascii=False).encode(), 9)
    script, style, template = (
        path.read_text(encoding="utf-8") for path in (SCRIPT, STYLE, TEMPLATE)
    )
    return Template(template).substitute(
        title=html.escape(f"{data.scene['title']}: {data.scene['settings']}"),
        payload=base64.b64encode(packed).decode(),
        script=script,
        style=style,
    )
