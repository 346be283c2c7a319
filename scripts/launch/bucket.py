"""Where a run's results and reports lie: a folder of a Cloud Storage bucket.

gs://BUCKET/FOLDER/NAME/                the run's workdir, as far as the machine has sent it
gs://BUCKET/FOLDER/launch/NAME/files/   what the machine starts from
gs://BUCKET/FOLDER/launch/NAME/logs/    what each worker printed, one file an attempt
gs://BUCKET/FOLDER/launch/NAME/status.json   {"beat": reports so far, "exit": null or a code}
"""

import dataclasses
import json
import re
from typing import Any

from rkbench.errors import UserError
from scripts.launch.jobs import Job
from scripts.launch.shell import Command, CommandError


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A folder of a bucket."""

    url: str

    def __post_init__(self):
        if not re.fullmatch(r"gs://[a-z0-9][\w.-]+(/[^\x00-\x1f*?\[\]{}#$/]+)*", self.url):
            raise UserError(f"--output={self.url} must be a folder of a bucket: gs://BUCKET/FOLDER")

    def workdir(self, job: Job) -> str:
        """The URL of the run's workdir."""
        return f"{self.url}/{job.name}"

    def launch(self, job: Job) -> str:
        """The URL of the folder with what concerns only the launching."""
        return f"{self.url}/launch/{job.name}"

    def record(self, job: Job) -> Command:
        """Prints the run's record."""
        return _cat(f"{self.workdir(job)}/run.json")

    def status(self, job: Job) -> Command:
        """Prints the machine's latest report."""
        return _cat(f"{self.launch(job)}/status.json")

    def expect(self, job: Job) -> Command:
        """Makes the status that of a machine which has not reported yet."""
        status = '{"beat": 0, "exit": null}\n'
        return Command(("gcloud", "storage", "cp", "-", f"{self.launch(job)}/status.json"), status)


def _cat(url: str) -> Command:
    return Command(("gcloud", "storage", "cat", url))


def read_json(command: Command) -> Any:
    """What the command prints, as JSON; None where there is no such object or it is not JSON.

    Raises CommandError where the bucket cannot be asked.
    """
    try:
        return json.loads(command.run())
    except CommandError as error:
        if "matched no objects" in error.output:
            return None
        raise
    except ValueError:
        return None
