"""Makes links of Markdown files that lie elsewhere in the repository work on the site.

In the repository a link leads from file to file. On the site, the Markdown files of `results/` are
pages below `_results/`; other files are downloads; a folder has no page, so its link is dropped.
"""

import os
import pathlib
import re

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
RESULTS = ROOT / "results"
RESULT_PAGES = DOCS / "_results"

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(\s*([^)\s:#]+)(#[^)\s]*)?\s*\)")


def relink(text: str, source: pathlib.Path, page: pathlib.Path) -> str:
    """The Markdown of the file `source` with its links as they must be at the place of `page`."""

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        file = pathlib.Path(os.path.normpath(source.parent / target))
        if file.is_dir():
            return label
        if file.suffix == ".md" and file.is_relative_to(RESULTS):
            file = RESULT_PAGES / file.relative_to(RESULTS)
        elif not file.exists():
            return match.group()  # Sphinx warns of it
        return f"[{label}]({os.path.relpath(file, page.parent)}{anchor or ''})"

    return LINK.sub(link, text)


def write_result_pages() -> None:
    """Writes the Markdown files of `results/`, with their links made to work, to `_results/`."""
    for source in [*RESULTS.glob("*.md"), *RESULTS.glob("comparison/*.md")]:
        page = RESULT_PAGES / source.relative_to(RESULTS)
        text = relink(source.read_text(encoding="utf-8"), source, page)
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:  # else nothing is stale
            page.write_text(text, encoding="utf-8")
