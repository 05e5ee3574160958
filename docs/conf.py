"""Sphinx's settings for the pages that `pages.py` writes; `make docs` runs both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import advprune_core
from advprune_core.base.settings import Settings
from docs.cards import as_rst

project = "advprune"
author = copyright = "The advprune authors"
release = version = advprune_core.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["**.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# Notebooks are shown as they were executed, or, of the course, as students get them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# In docstrings, `name` is a link where it can be one, and code elsewhere.
default_role = "py:obj"
autosummary_generate = False
# What pydantic and the registries put into every class says nothing about one.
autodoc_default_options = {"exclude-members": "model_config, model_post_init, registered"}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# What this package defines is found, but for private classes, type variables and a function in an annotation.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?s)(?!advprune_core\.).*"),
    ("py:.*", r"advprune_core\..*\.(_\w+|[A-Z])"),
    ("py:class", r"advprune_core\.base\.values\.ratio"),
]

viewcode_follow_imported_members = False

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "advprune"
html_static_path = [str(Path(__file__).with_name("site.css"))]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"


def _docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = as_rst("\n".join(lines)).split("\n")


def _signature(app: Sphinx, what: str, name: str, obj: object, *rest: object) -> tuple[str, None] | None:
    # The settings of a component stand on its page, with what they allow.
    return ("(**settings)", None) if isinstance(obj, type) and issubclass(obj, Settings) else None


def _navigation(app: Sphinx, page: str, template: str, context: dict[str, Any], *rest: object) -> None:
    # The way to a page and what is beside it: all of the tree on each of hundreds of pages would be most of them.
    if tree := context.get("toctree"):
        context["toctree"] = lambda **options: tree(**options | {"collapse": True})


def setup(app: Sphinx) -> None:
    """Docstrings are NumPy style; the script of tables that sort is among what `pages.py` has written."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("html-page-context", _navigation, priority=400)  # before furo
    app.connect("config-inited", lambda app, config: config.html_static_path.append(str(app.srcdir / "_static")))
