"""How Sphinx builds the site: `make docs`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "robustbench-lite"
version = release = version_of(project)

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "catalogue",
    "plain",
    "shown",
]
exclude_patterns = ["extensions"]
root_doc = "index"

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_heading_anchors = 3
# docs/LEADERBOARD.md goes from its title to the third level, as a pull request shows it best.
suppress_warnings = ["myst.header"]

smartquotes_action = "D"  # dashes only: quotes and dots stay as they are typed
default_role = "code"  # single backticks in docstrings are code, as in Markdown
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
