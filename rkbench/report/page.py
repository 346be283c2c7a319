"""One HTML file that holds everything: the content, the drawing library, style and behaviour."""

import html as markup
import importlib.resources
import json
import string
from collections.abc import Mapping
from typing import Any

SCRIPTS = (
    "elements.js",
    "marks.js",
    "overview.js",
    "table.js",
    "plots.js",
    "details.js",
    "main.js",
)


def html(content: Mapping[str, Any], title: str) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    # substitute() reads the template once: what is put in is never read as a template again.
    return string.Template(_asset("page.html")).substitute(
        title=markup.escape(title),
        style=_asset("style.css"),
        library=get_plotlyjs(),
        content=embedded(content),
        behaviour="\n".join(_asset(name) for name in SCRIPTS),
    )


def embedded(content: Mapping[str, Any]) -> str:
    """JSON that nothing in it can end: a script element ends at "<", which JSON can escape."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    path = importlib.resources.files("rkbench.report") / "assets" / name
    return path.read_text(encoding="utf-8")
