"""The list of runs that `scripts/` starts on other machines, as JSON.

One entry a run: its name, the arguments of `rkbench train` without a workdir, the seeds, and what
it costs. Gradient evaluations are exact; hours are an estimate for the machine that wrote the file,
which the file names, and are left out (null) where nothing was timed. Runs that are timed in turns
(Figures 6 and 16) are not in it: machines of their own would compare machines.
"""

import json
import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from typing import Any

from rkbench import files
from rkbench.errors import because
from rkbench.paper.estimate import estimate
from rkbench.paper.plan import Job, timing_group
from rkbench.records.provenance import source_commit


def write(jobs: Sequence[Job], scale: str, timed: bool, path: pathlib.Path) -> list[str]:
    """Writes the jobs with seeds that are missing; returns the names of those left out.

    Args:
      jobs: what is wanted.
      scale: a key of `SCALES`, written as it is.
      timed: whether hours are estimated, which times a few steps of every model.
      path: the file.

    Raises:
      UserError: the file cannot be written.
    """
    missing = [job for job in jobs if job.missing]
    alone = [job for job in missing if timing_group(job.run) is None]
    commit, dirty = source_commit()
    content = {
        "command": ["rkbench", *sys.argv[1:]],
        "commit": commit,
        "dirty": dirty,
        "scale": scale,
        "hours_on": _machine() if timed else None,
        "runs": [_entry(job, timed) for job in alone],
    }
    try:
        files.write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise because(f"--manifest={path} cannot be written", error) from error
    return [job.run.name for job in missing if job not in alone]


def _entry(job: Job, timed: bool) -> dict[str, Any]:
    cost = estimate(job, timed)
    return {
        "name": job.run.name,
        "arguments": job.arguments(),
        "seeds": list(job.missing),
        "grad_evals": cost.grad_evals,
        "hours": cost.hours and round(cost.hours, 3),
    }


def _machine() -> str:
    import jax

    return f"{platform.platform()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}"
