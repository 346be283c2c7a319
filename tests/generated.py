"""How many examples Hypothesis generates: a sample in `make test`, all in `make nightly`."""

import os

from hypothesis import HealthCheck, settings

# The share of the examples that is tried while one develops.
SHARE = 1 if os.environ.get("RKBENCH_TESTS") == "nightly" else 1 / 15


def generated(examples: int) -> settings:
    """The same examples in every run: `examples` of them nightly, at least two always."""
    return settings(
        max_examples=max(2, round(examples * SHARE)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
    )
