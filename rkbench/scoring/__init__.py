"""Scores from logs alone: which runs are alike, what each came to, and how methods compare.

    collection = collect([folder])  # settings (runs alike but for seeds) and what was left out
    scores = score(collection, "test/accuracy", {"mnist_mlp": 0.97})
    scores[0].final.interval, scores[0].to_target["grad_evals"].median
    compare(scores[0], scores[1]).paired

Everything below is a pure function of run records; nothing here trains or draws.
"""

from rkbench.scoring.collect import Collection, Omission, Setting, collect
from rkbench.scoring.outcomes import Outcome, SeedLog, lower_is_better, outcome
from rkbench.scoring.profiles import Profile, SpeedUp, profile, speed_up
from rkbench.scoring.robustness import Rate, Robustness, rate_field, robustness
from rkbench.scoring.scores import Comparison, Score, Times, compare, score, times
from rkbench.scoring.tables import Scores, tabulate

__all__ = [
    "Collection",
    "Comparison",
    "Omission",
    "Outcome",
    "Profile",
    "Rate",
    "Robustness",
    "Score",
    "Scores",
    "SeedLog",
    "Setting",
    "SpeedUp",
    "Times",
    "collect",
    "compare",
    "lower_is_better",
    "outcome",
    "profile",
    "rate_field",
    "robustness",
    "score",
    "speed_up",
    "tabulate",
    "times",
]
