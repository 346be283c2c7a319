"""The files that a machine starts from, and the lines of shell that fetch them there."""

import dataclasses
import json
import pathlib
import shlex

from scripts.launch.bucket import Bucket
from scripts.launch.jobs import Job
from scripts.launch.shell import Command
from scripts.launch.source import Source

AGENT = pathlib.Path(__file__).with_name("agent.py")


@dataclasses.dataclass(frozen=True)
class Kit:
    """What the machines of all jobs have in common.

    Attributes:
      bucket: where everything lies.
      source: which rkbench is installed.
      extra: of rkbench, for the accelerator, as "tpu"; "" for none.
      setup: lines of bash before the run, in the same shell.
      upload_seconds: between two uploads of the workdir: the most that a sudden death can lose.
      shared: a folder that all hosts of a run see and that outlives them, for the workdir; "" for
        the machine's own disk.
      hosts: workers of one run; None where the machine's metadata says it.
    """

    bucket: Bucket
    source: Source
    extra: str = ""
    setup: str = ""
    upload_seconds: float = 300
    shared: str = ""
    hosts: int | None = None

    def files(self, job: Job) -> dict[str, bytes]:
        """All files, {name: content}."""
        order = {
            "name": job.name,
            "arguments": job.arguments,
            "workdir": self.bucket.workdir(job),
            "launch": self.bucket.launch(job),
            "source": self.source.requirement,
            "commit": self.source.commit,
            "constraints": "constraints.txt" in self.source.files,
            "extra": self.extra,
            "setup": bool(self.setup),
            "upload_seconds": self.upload_seconds,
            "shared": f"{self.shared}/{job.machine(self.bucket.url)}" if self.shared else "",
            "hosts": self.hosts,
        }
        files = {"job.json": json.dumps(order, indent=1).encode() + b"\n"}
        if self.setup:
            files["setup.sh"] = self.setup.encode()
        return files | {"agent.py": AGENT.read_bytes()} | self.source.files

    def send(self, job: Job, folder: pathlib.Path) -> list[Command]:
        """Sends the files, which lie in `folder`, and makes ready what the machine relies on.

        The workdir gets a first object, so that it exists: a machine that cannot read it knows that
        something is wrong, and never takes that for a run that has not begun.
        """
        files = f"{self.bucket.launch(job)}/files/"
        first = f"{self.bucket.workdir(job)}/launch.json"
        return [
            Command(("gcloud", "storage", "cp", *self.files(job), files), folder=folder),
            Command(("gcloud", "storage", "cp", "job.json", first), folder=folder),
            self.bucket.expect(job),
        ]

    def fetch(self, job: Job) -> str:
        """Lines of bash that fetch the files into the current folder."""
        files = f"{self.bucket.launch(job)}/files/*"
        return f"until gcloud storage cp {shlex.quote(files)} .; do sleep 10; done"
