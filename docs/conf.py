"""How Sphinx builds this site: `make docs`. It needs no network, and neither does reading it."""

import pathlib
import re
import sys

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import links  # noqa: E402
import pictures  # noqa: E402
import tables  # noqa: E402

import rkbench  # noqa: E402

project = "rkbench"
author = "The rkbench authors"
project_copyright = "The rkbench authors"
release = rkbench.__version__

extensions = [
    "myst_nb",  # Markdown (MyST) and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"rkbench {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # it is committed executed, and a test executes it again
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True  # attributes are described once, in the docstring of their class
default_role = "py:obj"  # a name in `backticks` in a docstring: a link where there is a target
python_use_unqualified_type_names = True

logger = logging.getLogger(__name__)


def visit_math(writer, node) -> None:
    """Writes a formula as MathML, which browsers draw without a script."""
    display = isinstance(node, nodes.math_block)
    try:
        formula = latex2mathml.tex2mathml(node.astext(), as_block=display)
    except MathError as error:
        logger.warning("formula %s: %s", node.astext(), error, location=node)
        formula = ""
    writer.body.append(f'<div class="math">{formula}</div>' if display else formula)
    raise nodes.SkipNode


SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
PARAGRAPH = re.compile(r"(Expected|Cost[^:]*|Command|Choices):")  # of the docstrings of configs


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Makes reStructuredText of a docstring that was written to be read as it is.

    Indented blocks after a blank line are literal: code and equations. (The lines of a section such
    as "Args:" follow it at once.) Lists and the fields of configs begin paragraphs.
    """
    del app, name, obj, options
    if what == "property" and lines:  # napoleon takes what stands before a colon for its type
        lines[0] = lines[0].replace(": ", " - ", 1)
    result: list[str] = []
    within = False  # a literal block or a section, which ends with the next line that is flush left
    for line in lines:
        before = result[-1] if result else ""
        if line and not line.startswith(" "):
            within = bool(SECTION.match(line))
            listed = line.startswith("- ") and not before.startswith(("- ", "  "))
            if before and (listed or PARAGRAPH.match(line)):
                result.append("")
        elif line and not within and result and not before:
            result += ["::", ""]
            within = True
        result.append(line)
    lines[:] = result


def skip_field(app, what, name, obj, skip, options):
    """Skips fields of named tuples: their own docstring is "Alias for field number 0"."""
    del app, what, name, options
    return True if type(obj).__name__ == "_tuplegetter" else skip


def relink(app, name: str, text: list[str]) -> None:
    """Fills in the tables, and makes links to files that are not below `docs/` work on the site."""
    text[0] = tables.filled(text[0])
    page = pathlib.Path(app.env.doc2path(name))
    if not page.is_relative_to(links.RESULT_PAGES):
        text[0] = links.relink(text[0], page, page)


def prepare(app) -> None:
    """Makes what the pages show and is not committed: pictures, and the pages of `results/`."""
    del app
    pictures.draw(HERE / "_pictures")
    links.write_result_pages()


def setup(app) -> None:
    """Connects what this site adds to Sphinx."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip_field)
    app.connect("source-read", relink)
    app.connect("builder-inited", prepare)
