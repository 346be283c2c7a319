"""Machines of a run: folders with the launcher's files in which agents work, and their bucket."""

import json

from scripts.launch import agent
from scripts.launch.bucket import Bucket
from scripts.launch.jobs import Job
from scripts.launch.kit import Kit
from scripts.launch.source import Source

BUCKET = Bucket("gs://bucket/paper")
JOB = Job("run", ("--config=x",))


def prepared(world, job, machine="machine", hosts=1, **options):
    """The machine's folder with the launcher's files, as if fetched; the bucket's first object."""
    here = world.folder / machine
    here.mkdir(exist_ok=True)
    kit = Kit(BUCKET, options.pop("source", Source()), hosts=hosts, **options)
    for name, content in kit.files(job).items():
        (here / name).write_bytes(content)
    first = world.object(f"{BUCKET.workdir(job)}/launch.json")
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text("{}")
    return here


def run(world, *arguments, worker=0, workers=1, **options):
    """Runs an agent to its end; (exit code, its log, the status it left)."""
    job = Job("run", ("--config=x", *arguments))
    here = prepared(world, job, **options)
    one = agent.Agent(json.loads((here / "job.json").read_text()), here, worker, workers)
    code = one.run()
    return code, (here / "log.txt").read_text(), status(world, job)


def status(world, job):
    path = world.object(f"{BUCKET.launch(job)}/status.json")
    return json.loads(path.read_text()) if path.exists() else {}


def bucket_files(world, name="run"):
    folder = world.object(f"{BUCKET.url}/{name}")
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }
