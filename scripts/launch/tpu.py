"""TPU VMs, by queued resources: one for each run, deleted when the run is over.

A machine's startup script does everything there, on every worker and again after a reboot, and what
it has to say it writes to the bucket. There is no SSH session that could break or need a key.
"""

import dataclasses
import pathlib
import re

from scripts.launch.jobs import Job
from scripts.launch.kit import Kit
from scripts.launch.shell import Command, CommandError
from scripts.launch.watch import State

# As a service of its own the agent is stopped before the network, with time for a last upload: what
# a startup script leaves running would be killed at the very end of a shutdown.
_STARTUP = """#!/usr/bin/env bash
set -euo pipefail
export PATH="$PATH:/snap/bin" HOME=/root
mkdir -p /var/lib/rkbench
cd /var/lib/rkbench
{fetch}
exec systemd-run --unit=rkbench --collect --working-directory="$PWD" \\
  --setenv=PATH="$PATH" --setenv=HOME="$HOME" \\
  --property=After=network-online.target --property=KillMode=mixed \\
  --property=TimeoutStopSec=120 python3 agent.py job.json
"""

_STATES = {
    "ACTIVE": State.RUNNING,
    "SUSPENDING": State.PREEMPTED,
    "SUSPENDED": State.PREEMPTED,
    "FAILED": State.FAILED,
    "DELETING": State.FAILED,
}


def has_several_hosts(accelerator: str) -> bool:
    """Whether the name alone says so: no host of these kinds has more than 8 cores or chips."""
    size = re.fullmatch(r"v(?:2|3|4|5p|5litepod|6e)-([0-9]+)", accelerator)
    return size is not None and int(size[1]) > 8


@dataclasses.dataclass(frozen=True)
class TPU:
    """The kind of machine.

    Attributes:
      kit: what it starts from.
      zone, project: of Google Cloud; project "" is that of gcloud's configuration.
      accelerator: as v5litepod-1, a single host, or v5litepod-16, four.
      runtime: the image, as v2-alpha-tpuv5-lite.
      spot: cheaper, and may be taken away at any time.
      options: further flags of `queued-resources create`.
    """

    kit: Kit
    zone: str
    project: str
    accelerator: str
    runtime: str
    spot: bool
    options: tuple[str, ...] = ()

    restarts = False  # a machine that was taken away does not come back by itself

    @property
    def bucket(self):
        """The kit's."""
        return self.kit.bucket

    def files(self, job: Job) -> dict[str, bytes]:
        """The kit, and the startup script."""
        startup = _STARTUP.format(fetch=self.kit.fetch(job))
        return self.kit.files(job) | {"startup.sh": startup.encode()}

    def start(self, job: Job, folder: pathlib.Path) -> list[Command]:
        """Sends the files and queues for the machine."""
        create = self._command(
            "create",
            job,
            f"--node-id={job.machine(self.bucket.url)}",
            f"--accelerator-type={self.accelerator}",
            f"--runtime-version={self.runtime}",
            *(["--spot"] if self.spot else []),
            "--metadata-from-file=startup-script=startup.sh",
            *self.options,
        )
        return [*self.kit.send(job, folder), dataclasses.replace(create, folder=folder)]

    def describe(self, job: Job) -> Command:
        """Prints the state."""
        return self._command("describe", job, "--format=value(state.state)")

    def look(self, job: Job) -> State:
        """The state; CommandError where gcloud cannot say."""
        try:
            return _STATES.get(self.describe(job).run().strip(), State.WAITING)
        except CommandError as error:
            if "NOT_FOUND" in error.output:
                return State.ABSENT
            raise

    def delete(self, job: Job) -> Command:
        """Deletes the request and its machine."""
        return self._command("delete", job, "--force", "--quiet")

    def _command(self, verb: str, job: Job, *flags: str) -> Command:
        name = job.machine(self.bucket.url)
        place = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]
        command = ("gcloud", "compute", "tpus", "queued-resources", verb, name, *place, *flags)
        return Command(command)
