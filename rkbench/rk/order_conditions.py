"""Order conditions of Runge-Kutta methods over rooted trees (Butcher's theory).

A method (a, b) has order p exactly if, for every rooted tree t with at most p nodes,

    Phi(t) = 1 / gamma(t),

Phi the elementary weight of the tree and gamma its density: Hairer, Norsett and Wanner,
"Solving Ordinary Differential Equations I", Section II.2. A tree is the sorted tuple of the
subtrees that hang from its root, so `()` is the single node and `((),)` a root with one leaf.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

Tree = tuple["Tree", ...]


@functools.cache
def rooted_trees(nodes: int) -> tuple[Tree, ...]:
    """All rooted trees with exactly `nodes` nodes: 1, 1, 2, 4, 9, 20, ... of them."""
    return tuple(sorted(_forests(nodes - 1, nodes - 1)))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    """Multisets of trees of at most `largest` nodes each, with `nodes` nodes in all."""
    if nodes == 0:
        yield ()
    elif largest > 0:
        for copies in range(nodes // largest + 1):
            for rest in _forests(nodes - copies * largest, largest - 1):
                for chosen in combinations_with_replacement(rooted_trees(largest), copies):
                    yield tuple(sorted(chosen + rest))


def size(tree: Tree) -> int:
    """The number of nodes."""
    return 1 + sum(map(size, tree))


def density(tree: Tree) -> int:
    """gamma(t): the number of nodes times the densities of the root's subtrees."""
    return size(tree) * math.prod(map(density, tree))


def elementary_weight(tree: Tree, a: Sequence[Sequence[float]], b: Sequence[float]) -> float:
    """Phi(t) = sum_i b_i prod_{children c} sum_j a_ij (the same product for c at j)."""
    return math.fsum(
        weight * value for weight, value in zip(b, _stage_values(tree, a), strict=True)
    )


def _stage_values(tree: Tree, a: Sequence[Sequence[float]]) -> list[float]:
    """One number a stage: what the tree's root contributes there."""
    values = [1.0] * len(a)
    for child in tree:
        inner = _stage_values(child, a)
        for i, row in enumerate(a):
            values[i] *= math.fsum(entry * value for entry, value in zip(row, inner, strict=True))
    return values


def residuals(a: Sequence[Sequence[float]], b: Sequence[float], nodes: int) -> dict[Tree, float]:
    """Phi(t) - 1 / gamma(t) for each tree of exactly `nodes` nodes: all 0 at order >= nodes."""
    return {tree: elementary_weight(tree, a, b) - 1 / density(tree) for tree in rooted_trees(nodes)}
