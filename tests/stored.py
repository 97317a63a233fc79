"""What committed notebooks say and show: their prose, and tables in their stored outputs."""

import html
import re
from functools import cache
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@cache
def cells(name: str) -> list:
    """The cells of the notebook whose file name begins with ``name``."""
    (path,) = NOTEBOOKS.glob(f"{name}*.ipynb")
    return nbformat.read(path, 4).cells


def prose(name: str) -> str:
    """The text of a notebook's Markdown cells, in one line."""
    parts = (cell.source for cell in cells(name) if cell.cell_type == "markdown")
    return " ".join("\n".join(parts).split())


def shown_rows(name: str, cell: str, part: str = "table") -> list[list[str]]:
    """The texts of the table that a cell shows, row by row, or of a part of it, such as tbody."""
    (own,) = (one for one in cells(name) if one.id == cell)
    (shown,) = (x["data"]["text/html"] for x in own.outputs if "text/html" in x.get("data", ()))
    _, _, shown = shown.partition(f"<{part}")
    rows = (
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        for row in re.findall(r"<tr>(.*?)</tr>", shown, re.S)
    )
    return [[html.unescape(text).strip() for text in row] for row in rows]


def shown_table(name: str, cell: str) -> dict[str, list[str]]:
    """The table that a cell shows: the name of each row → its texts, in order."""
    return {head: rest for head, *rest in shown_rows(name, cell, "tbody")}


def svg_texts(name: str, cell: str) -> list[str]:
    """The texts of the picture that a cell shows, in order."""
    (own,) = (one for one in cells(name) if one.id == cell)
    (svg,) = (
        x["data"]["image/svg+xml"] for x in own.outputs if "image/svg+xml" in x.get("data", ())
    )
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
