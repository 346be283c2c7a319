"""SLURM: one job array for all runs, on a file system that login and compute nodes share.

SLURM itself keeps the cap on how many run at once, starts a preempted run again and needs nobody
who watches, so this launcher submits and is done.
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Sequence

from rkbench.errors import UserError
from scripts.launch.jobs import Job
from scripts.launch.shell import Command

# Seconds before the time limit at which a run is told to save and is queued again.
_WARNING = 180

_SCRIPT = """#!/usr/bin/env bash
set -eo pipefail
{setup}
set -u
case "$SLURM_ARRAY_TASK_ID" in
{cases}
esac
if ((${{SLURM_NTASKS:-1}} > 1)); then
  arguments+=(--distributed)
fi
mkdir -p "$workdir"

# The time limit comes near: the run saves and ends, and the job goes back into the queue.
limit=
trap 'limit=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

srun rkbench train "${{arguments[@]}}" --workdir="$workdir" &
run=$!
while code=0; wait "$run" || code=$?; kill -0 "$run" 2>/dev/null; do
  :  # a signal ended the waiting, and not the run
done
echo "exit code $code"

if ((code == 0 || code == 2)); then
  exit "$code"  # done, or bad input: another attempt would not change it
fi
if [[ -z $limit ]]; then
  if ((code == 75)); then
    exit 75  # stopped from outside: SLURM queues what it preempted, and not what was cancelled
  fi
  echo "$code" >>"$failures"
  if (($(wc -l <"$failures") >= {attempts})); then
    exit "$code"
  fi
fi
scontrol requeue "$SLURM_JOB_ID"
"""

_CASE = """  {index})
    workdir={workdir}
    failures={failures}
    arguments=({arguments})
    ;;"""


@dataclasses.dataclass(frozen=True)
class Slurm:
    """How runs are submitted.

    Attributes:
      output: the folder for workdirs; `launch` in it is for what concerns the launching.
      at_once, attempts: as in `watch.Limits`.
      setup: lines of bash before the run, as `module load` and the activation of an environment.
      options: further flags of sbatch: --partition, --time, --nodes, --gres and so on.
    """

    output: pathlib.Path
    at_once: int
    attempts: int
    setup: str = ""
    options: tuple[str, ...] = ()

    def submit(self, jobs: Sequence[Job]) -> Command:
        """Submits the jobs as one array."""
        log = str(self.output / "launch").replace("%", "%%")
        command = (
            *("sbatch", "--parsable", "--job-name=rkbench"),
            f"--array=0-{len(jobs) - 1}%{self.at_once}",
            *("--requeue", "--open-mode=append", f"--signal=B:USR1@{_WARNING}"),
            f"--output={log}/%A_%a.txt",
            *self.options,
        )
        return Command(command, self.script(jobs))

    def script(self, jobs: Sequence[Job]) -> str:
        """The batch script; each task of the array finds its run by its index."""
        cases = [
            _CASE.format(
                index=index,
                workdir=shlex.quote(str(self.output / job.name)),
                failures=shlex.quote(str(self._failures(job))),
                arguments=shlex.join(job.arguments),
            )
            for index, job in enumerate(jobs)
        ]
        setup = f"\n{self.setup.strip()}\n" if self.setup else ""  # it may use unset variables
        return _SCRIPT.format(setup=setup, cases="\n".join(cases), attempts=self.attempts)

    def unfinished(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs whose folder has no record of a finished run."""
        return [job for job in jobs if not job.is_finished(self._record(job))]

    def start(self, jobs: Sequence[Job]) -> str:
        """Submits the jobs, with all their attempts before them; returns SLURM's answer.

        Raises:
          UserError: the folder cannot be written.
          CommandError: sbatch refuses.
        """
        try:
            (self.output / "launch").mkdir(parents=True, exist_ok=True)
            for job in jobs:
                self._failures(job).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"--output={self.output}: {error.strerror}") from error
        return self.submit(jobs).run().strip()

    def _failures(self, job: Job) -> pathlib.Path:
        return self.output / "launch" / f"{job.name}.failures"

    def _record(self, job: Job) -> object:
        try:
            return json.loads((self.output / job.name / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
