"""Sphinx on the committed notebooks; run by docs/build.py over a staged copy of the sources, and without a network."""

import re

project = "lagvae"
author = "the lagvae contributors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "lagvae: lagging inference networks, runnable"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "use_download_button": False}
html_show_sphinx = False

nb_execution_mode = "off"  # the notebooks are committed with their outputs
nb_merge_streams = True
nb_output_stderr = "remove"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
mathjax_path = "mathjax/tex-chtml.js"  # in _static: formulas need no other host
mathjax3_config = {"options": {"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area"}}

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints = "signature"
toc_object_entries = False  # else every page carries and resolves a contents of all names of the library
suppress_warnings = ["myst.header", "misc.highlighting_failure", "mystnb.unknown_mime_type"]


def plain(app, what, name, obj, options, lines):
    """Docstrings here are plain text: keep their lines, and let no character of them be markup."""
    lines[:] = [f"| {_escaped(line)}" if line.strip() else "|" for line in lines]


def _escaped(line: str) -> str:
    text = re.sub(r"([\\*|_])", r"\\\1", line)
    return re.sub(r"`([^`]+)`", lambda code: f"``{code[1].replace(chr(92), '')}``", text)


def setup(app) -> dict:
    """Called by Sphinx, which reads and writes pages side by side only where this says that it may."""
    app.connect("autodoc-process-docstring", plain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
