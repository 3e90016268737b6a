"""How the pages become a site: `make docs`. Nothing is fetched, and warnings are errors."""

import nextlong

project = "NExtLong on Dask"
version = release = nextlong.__version__
copyright = "Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"

highlight_language = "none"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_title = project
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["fields.py"]
