"""Our scores of a public benchmark's logs are the ones that it published.

AlgoPerf's leaderboard of version 0.6, external tuning, scores a submission by the area under its
performance profile over eight workloads, for ratios up to 4, which it samples at 100 points.
"""

import math

import numpy as np
import pytest

from rkbench import scoring

# Median times to the target in seconds, (baseline, Shampoo), read from the leaderboard's logs.
SECONDS = {
    "criteo1tb": (7491.487, 7692.308),
    "fastmri": (873.260, 640.769),
    "imagenet_resnet": (math.inf, math.inf),
    "imagenet_vit": (math.inf, 41094.598),
    "librispeech_conformer": (math.inf, math.inf),
    "librispeech_deepspeech": (math.inf, math.inf),
    "ogbg": (4575.802, 2868.328),
    "wmt": (35319.429, 33604.822),
}
TIMES = {task: {"baseline": pair[0], "shampoo": pair[1]} for task, pair in SECONDS.items()}


@pytest.mark.parametrize(
    ("submission", "published", "exact"),
    [("shampoo", 0.6244, 0.6239), ("baseline", 0.4590, 0.4580)],
)
def test_the_scores_are_those_of_the_leaderboard(submission, published, exact):
    profile = scoring.profile(TIMES)[submission]
    tau = np.linspace(1, 4, 100)
    sampled = np.trapezoid(profile(tau), tau) / (tau[-1] - tau[0])
    assert round(float(sampled), 4) == published
    assert round(profile.area(max_ratio=4), 4) == exact
