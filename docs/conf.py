"""Builds the documentation site with Sphinx and MyST; `make docs` runs it offline, and a broken link is an error."""

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "eeg2image-bench"
author = "the eeg2image-bench authors"
release = importlib.metadata.version(project)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_argparse_cli", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
suppress_warnings = ["myst.header"]  # a page may begin below its first heading


def _show_as_written(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Shows a docstring's first paragraph as text and the rest as it is written, because it is not reStructuredText."""
    end = lines.index("") if "" in lines else len(lines)
    first, rest = " ".join(lines[:end]).split("`"), lines[end:]
    first[::2] = [re.sub(r"([*_|\\\\])", r"\\\1", text) for text in first[::2]]  # outside of literals
    lines[:] = ["``".join(first), *(["", "::", "", *("   " + line for line in rest), ""] if any(rest) else [])]


def setup(app: Any) -> None:
    """Registers how docstrings are shown."""
    app.connect("autodoc-process-docstring", _show_as_written)
