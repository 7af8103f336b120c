"""Settings of the documentation: `python -m sphinx -W docs build/docs`."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sparsefeat

project = "sparsefeat"
author = "sparsefeat authors"
copyright = "2026, sparsefeat authors"
version = release = sparsefeat.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["build", "notebooks"]
html_theme = "furo"
html_title = f"sparsefeat {version}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "params_style")]

# Results and notes are written from results/; a checkout without them is no error.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(
    lambda record: "toctree glob pattern" not in str(record.msg)
)

# Links to files of the repository are no pages.
suppress_warnings = ["myst.xref_missing"]
