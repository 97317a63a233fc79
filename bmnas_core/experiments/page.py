"""An executed notebook as one page of HTML that needs no kernel and no network."""

import html
import logging
import re
from pathlib import Path

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
WIDGET, TEXT = "application/vnd.jupyter.widget-view+json", "text/plain"


def write_page(executed: Path, folder: Path) -> None:
    """Write a notebook as one HTML file beside it.

    Pictures are inside, code is visible and equations are MathML. Widgets that left no picture
    are left out.

    Args:
        folder: of the original notebook, where relative links to pictures lead.
    """
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    nb = nbformat.read(executed, as_version=4)
    nb.metadata.pop("widgets", None)
    kept: list[str] = []

    def set_aside(found: re.Match) -> str:
        """A placeholder for a tag or an equation, which Markdown and nbconvert would mangle."""
        if found[1]:
            return found[1]
        kept.append(found[4] or _mathml(found))
        return f"\ue000{len(kept) - 1}\ue001"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = ASIDE.sub(set_aside, cell.source)
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("data", {}).pop(WIDGET, None) is None or set(output.data) - {TEXT}
            ]
    exporter = HTMLExporter(
        embed_images=True,
        extra_loaders=[DictLoader({"page.html.j2": TEMPLATE})],
        template_file="page.html.j2",
    )
    exporter.log = logging.Logger("bmnas.page", logging.CRITICAL)  # what matters raises an error
    origin = {"name": executed.stem, "path": str(folder)}
    page, _ = exporter.from_notebook_node(nb, {"metadata": origin})
    page = re.sub("\ue000(\\d+)\ue001", lambda found: kept[int(found[1])], page)
    with atomic_write(executed.with_suffix(".html")) as beside:
        beside.write_text(page, encoding="utf-8")


def _mathml(found: re.Match) -> str:
    """An equation of :data:`ASIDE` as MathML; text that is not LaTeX stays as it is."""
    from latex2mathml.converter import convert

    _, block, inline, _ = found.groups()
    try:
        return convert(block or inline, display="block" if block else "inline")
    except Exception:  # whatever it stumbles over, the reader still has the source
        return html.escape(found.group())
