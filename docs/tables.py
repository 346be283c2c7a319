"""What pages list of the code, made when the site is built: a row there needs none here."""

import fractions
import pathlib
from collections.abc import Callable, Sequence

import rkbench.configs
from rkbench.rk.tableaus import FAMILIES, TABLEAUS, Tableau


def tableaus() -> str:
    """A Markdown table of the named tableaus: stages, order, and where the stages stand."""
    lines = ["| name | stages | order | step |", "| --- | ---: | ---: | --- |"]
    for name, tableau in TABLEAUS.items():
        lines.append(f"| `{name}` | {tableau.stages} | {tableau.order} | {_equations(tableau)} |")
    families = ", ".join(f"`{name}`" for name in FAMILIES)
    return "\n".join(lines) + f"\n\nFamilies of tableaus, with keywords of their own: {families}."


def _equations(tableau: Tableau) -> str:
    """g*, and theta_i of all stages but the first."""
    equations = [f"g^* = {_sum(tableau.b)}"]
    for i, row in enumerate(tableau.a[1:], 2):
        equations.append(rf"\theta_{i} = \theta - h \left({_sum(row)}\right)")
    return ", ".join(f"${equation}$" for equation in equations)


def _sum(weights: Sequence[float]) -> str:
    """The weighted sum of the gradients g_1, g_2, ... at the stages."""
    terms = [f"{_number(w)}g_{i}" for i, w in enumerate(weights, 1) if w]
    return " + ".join(terms).replace("+ -", "- ")


def _number(weight: float) -> str:
    if abs(weight) == 1:
        return "-" if weight < 0 else ""
    found = fractions.Fraction(weight).limit_denominator(100_000)
    if abs(found - weight) > 1e-12:
        return f"{weight:.6g} "
    sign, whole = "-" if found < 0 else "", abs(found)
    fraction = rf"\frac{{{whole.numerator}}}{{{whole.denominator}}}"
    return sign + (f"{whole.numerator} " if whole.denominator == 1 else fraction + " ")


def configs() -> str:
    """A section for each config file, with its docstring."""
    folder = pathlib.Path(rkbench.configs.__file__).parent
    return "\n\n".join(
        f"### {file.name}\n\n```{{eval-rst}}\n.. automodule:: rkbench.configs.{file.stem}\n```"
        for file in sorted(folder.glob("[a-z]*_*.py"))
    )


PLACES: dict[str, Callable[[], str]] = {
    "<!-- tableaus -->": tableaus,
    "<!-- configs -->": configs,
}


def filled(page: str) -> str:
    """The page with the tables in their places."""
    for place, table in PLACES.items():
        if place in page:
            page = page.replace(place, table())
    return page
