"""An executed notebook as one page of HTML that needs no kernel and no network."""

import base64
import html
import logging
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from ..errors import in_line, quoted
from ..storage import atomic_write

TEMPLATE = Path(__file__).with_name("page.html.j2")
#: Code in Markdown, LaTeX between double and between single dollar signs, tags of folded text.
ASIDE = re.compile(
    r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)"
    r"|(</?(?:details|summary)>)",
    re.DOTALL,
)
#: What nbconvert writes for a picture without a text of its own.
UNDESCRIBED = 'alt="No description has been provided for this image"'
#: Links that are no addresses and no places on the page.
RELATIVE = re.compile(r'<a href="(?![a-z]+:|#|/)([^"#]+)(#[^"]*)?"')
#: Words of a picture that its alternative text repeats, at most.
MOST_WORDS = 30
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

    Pictures are embedded and say where they stand, code can be folded, and equations are MathML.
    Relative links lead to where the files are; those to files that are not there become text.
    Widgets that left no picture are omitted; texts of more than :data:`LONGEST` characters are cut.

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
    alts = iter([*_alternatives(nb)])
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

    template = TEMPLATE.read_text(encoding="utf-8")
    exporter = Exporter(
        extra_loaders=[DictLoader({TEMPLATE.name: template})], template_file=TEMPLATE.name
    )
    exporter.environment.globals["dark"] = _dark_theme(exporter.template_paths)
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
    page = re.sub(UNDESCRIBED, lambda found: f'alt="{html.escape(next(alts, "picture"))}"', page)
    page = RELATIVE.sub(lambda found: _linked(found, folder, path.parent), page)
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


def _alternatives(nb) -> Iterator[str]:
    """A text for each picture among the outputs: its section, and the words in it."""
    section, count = "the beginning", 0
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for heading in re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE):
                section = re.sub(r"[*`$]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
        for output in cell.get("outputs", ()) if cell.cell_type == "code" else ():
            data = output.get("data", {})
            if not any(kind.startswith("image/") for kind in data):
                continue
            count += 1
            words = re.findall(r"<text[^>]*>([^<]+)</text>", data.get("image/svg+xml", ""))
            words = list(dict.fromkeys(html.unescape(word).strip() for word in words))
            text = f"Picture {count}, in the section “{section}”"
            yield f"{text}: {', '.join(filter(None, words[:MOST_WORDS]))}" if words else text


def _linked(found: re.Match, folder: Path, page: Path) -> str:
    """A link of a notebook in ``folder``, from a page in another one."""
    target = folder / unquote(html.unescape(found[1]))
    if not target.exists():
        return "<a"
    try:
        place = os.path.relpath(target.resolve(), page.resolve())
    except ValueError:  # on another drive of Windows
        return "<a"
    return f'<a href="{html.escape(quote(Path(place).as_posix()))}{found[2] or ""}"'


def _dark_theme(folders: list[str]) -> str:
    """JupyterLab's colours for dark pages, as they come with nbconvert."""
    for folder in folders:
        path = Path(folder) / "static" / "theme-dark.css"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


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
