"""Text from records and folders, made fit to be shown: on a terminal, in a table, in a picture."""


def printable(text: str) -> str:
    """The text as one line: what has no glyph (control characters, half a surrogate) is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def literal(text: str) -> str:
    """The text as Matplotlib draws it as it is: dollars begin no formula."""
    return printable(text).replace("$", r"\$")
