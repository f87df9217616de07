"""Sphinx settings of the site; docs/build.py puts its sources together and calls Sphinx."""
from configparser import ConfigParser
from pathlib import Path

import latex2mathml.converter

settings = ConfigParser(delimiters=["="])
settings.read(Path(__file__).parent.parent/"settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]

project, version, release = settings["lib_name"], settings["version"], settings["version"]
author, copyright = settings["author"], settings["copyright"]
extensions = ["myst_nb", "sphinx_copybutton"]
exclude_patterns = ["README.md"]          # parts of it are included where they belong

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path, html_css_files = ["static"], ["site.css"]
html_show_sourcelink = False
python_maximum_signature_line_length = 70
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc)", ".*")]   # types in signatures: most are of other libraries

myst_enable_extensions = ["dollarmath", "colon_fence", "fieldlist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True                     # $$ at the end of a paragraph, as JupyterLab takes it
suppress_warnings = ["mystnb.unknown_mime_type"]    # a widget's state: the static picture beside it is what is shown

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Source", "Source"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
copybutton_exclude = ".linenos, .gp"


def setup(app):
    "Equations as MathML: no script, no request to another host."
    from docutils import nodes
    def math(self, node, display="inline"):
        self.body.append(latex2mathml.converter.convert(node.astext(), display=display))
        raise nodes.SkipNode
    app.add_html_math_renderer("mathml", (math, None), (lambda self, node: math(self, node, "block"), None))


html_math_renderer = "mathml"
