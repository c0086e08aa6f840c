"""Sphinx configuration. `make docs` builds docs/_build/html; every warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

import pixelwise  # noqa: E402

project = "pixelwise"
copyright = "the pixelwise authors, Apache-2.0"
version = release = pixelwise.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "reference_pages",
]
exclude_patterns = ["_build", "_extensions", "_static", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"pixelwise {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

# Headings up to level 3 can be linked as `page.md#heading`.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist", "colon_fence"]
nb_execution_mode = "off"  # tests/test_docs.py runs the notebook

# Docstrings write code in single backticks.
default_role = "code"
smartquotes = False  # they would turn the dashes of flags into one long dash
add_module_names = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_inherit_docstrings = False  # those of torch.nn.Module say nothing about our networks
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature of the class holds the types

# References between pages are checked. Type names in signatures point to objects of other packages
# and to internal ones that have no page.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r".*")]
suppress_warnings = ["ref.python"]  # several classes have an attribute `classes`

copybutton_prompt_text = "$ "
