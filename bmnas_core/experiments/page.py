"""An executed notebook as one page of HTML that needs no kernel and no network."""

import base64
import html
import logging
import re
import secrets
from pathlib import Path
from urllib.parse import unquote

from ..errors import in_line, quoted
from ..storage import atomic_write

#: nbconvert's own template, without its scripts for widgets and diagrams, and with pictures no
#: wider than the page.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}
<style>.jp-RenderedSVG img, .jp-RenderedSVG svg { max-width: 100%; height: auto; }</style>
{%- endblock -%}
"""
#: Code in Markdown, LaTeX between double and between single dollar signs, tags of folded text.
ASIDE = re.compile(
    r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)"
    r"|(</?(?:details|summary)>)",
    re.DOTALL,
)
#: The most characters of one text that a page shows.
LONGEST = 1_000_000
#: The placeholder for a missing picture.
NO_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="120" height="24">'
    '<rect width="120" height="24" fill="#eee"/><text x="8" y="17">no picture</text></svg>'
)
WIDGET, TEXT = "application/vnd.jupyter.widget-view+json", "text/plain"


def write_page(nb, path: Path, folder: Path) -> str:
    """Write an executed notebook as one HTML file. Changes ``nb``.

    Pictures are embedded, code is visible and equations are MathML. Widgets that left no picture
    are omitted; texts of more than :data:`LONGEST` characters are cut.

    Args:
        folder: of the original notebook, from which relative links to pictures start.

    Returns what the page lacks, in a line; "" if it is complete.
    """
    from jinja2 import DictLoader, pass_context
    from nbconvert import HTMLExporter

    nb.metadata.pop("widgets", None)
    kept: list[str] = []
    mark = secrets.token_hex(8)  # so that no text of the notebook is taken for a placeholder

    def set_aside(found: re.Match) -> str:
        """A placeholder for a tag or an equation, which Markdown and nbconvert would mangle."""
        if found[1]:
            return found[1]
        kept.append(found[4] or _mathml(found))
        return f"\ue000{mark}-{len(kept) - 1}\ue001"

    missing: list[str] = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = ASIDE.sub(set_aside, cell.source)
        if cell.cell_type == "code":
            cell.outputs = [_shown(output) for output in cell.outputs if not _is_widget(output)]

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context, source):
            attachments = _Attachments(context["cell"].get("attachments", {}), missing)
            context = {"cell": {"attachments": attachments}, "resources": context["resources"]}
            return super().markdown2html(context, source)

    exporter = Exporter(
        extra_loaders=[DictLoader({"page.html.j2": TEMPLATE})],
        template_file="page.html.j2",
    )
    exporter.log = logging.Logger("bmnas.page", logging.CRITICAL)  # what matters raises an error
    origin = {"metadata": {"name": path.stem, "path": str(folder)}}
    lacks = ""
    try:
        exporter.embed_images = True
        page, _ = exporter.from_notebook_node(nb, origin)
    except Exception as error:  # such as a link to a folder or to a file that cannot be read
        exporter.embed_images = False
        page, _ = exporter.from_notebook_node(nb, origin)
        lacks = f"{path}: without its linked pictures: {in_line(error)}"
    page = re.sub(f"\ue000{mark}-(\\d+)\ue001", lambda found: kept[int(found[1])], page)
    with atomic_write(path) as beside:
        beside.write_text(page, encoding="utf-8", errors="replace")
    if missing and not lacks:
        lacks = f"{path}: without {quoted(missing[0])}, which is attached to no cell"
    return lacks


class _Attachments:
    """A cell's attachments, found by their names as links write them. Notes what is ``missing``."""

    def __init__(self, attachments: dict, missing: list[str]):
        self.attachments, self.missing = attachments, missing

    def __contains__(self, name: str) -> bool:
        return True

    def __getitem__(self, name: str) -> dict:
        for spelled in (name, unquote(name), html.unescape(unquote(name))):
            if self.attachments.get(spelled):
                return self.attachments[spelled]
        self.missing.append(unquote(name))
        return {"image/svg+xml": base64.b64encode(NO_PICTURE.encode()).decode()}


def _is_widget(output) -> bool:
    """Whether an output is a widget of which only the name is left."""
    data = output.get("data", {})
    return data.pop(WIDGET, None) is not None and not set(data) - {TEXT}


def _shown(output):
    """An output with its text cut to what a page can show."""
    for place, name in ((output, "text"), (output.get("data", {}), TEXT)):
        if len(place.get(name) or "") > LONGEST:
            left = f"{len(place[name]) - LONGEST:,} characters are only in the notebook"
            place[name] = f"{place[name][:LONGEST]}\n… {left}"
    return output


def _mathml(found: re.Match) -> str:
    """An equation of :data:`ASIDE` as MathML; text that is not LaTeX stays as it is."""
    from latex2mathml.converter import convert

    _, block, inline, _ = found.groups()
    try:
        return convert(block or inline, display="block" if block else "inline")
    except Exception:  # whatever it fails at, the reader still has the source
        return html.escape(found.group())
