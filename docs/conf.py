"""The course as a static site: ``make site``.

The folder of the sources is the repository, so that links between pages, notebooks and other files
lead to the same places here and on GitHub. Notebooks are shown as they are committed.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import pages  # noqa: E402 - beside this file

from bmnas_core import __version__  # noqa: E402

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: The one place of the repository's address; without one there are no links to it.
repository = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]

project = "BM-NAS kit"
author = copyright = "The BM-NAS kit authors"
release = __version__
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*", "CHANGELOG.md", "bmnas_core/README.md"]
exclude_patterns = ["notebooks/.*", "**/.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

nb_execution_mode = "off"
nb_merge_streams = True
# The best form of each output that a page without a kernel can show.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "separated"
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "BM-NAS kit"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_extra_path = ["_made/extra"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"  # of pages.py: formulas show without a network


def launch_options(repository: str) -> dict:
    """Theme options with links to the repository, Binder and Colab; none without an address."""
    if not repository:
        return {}
    buttons = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    return {
        "repository_url": repository,
        "repository_branch": "main",
        "use_repository_button": True,
        "launch_buttons": buttons,
    }


html_theme_options |= launch_options(repository)


def setup(app):
    app.add_html_math_renderer("mathml", (pages.inline_math, None), (pages.display_math, None))
    pages.make(ROOT / "docs" / "_made")
