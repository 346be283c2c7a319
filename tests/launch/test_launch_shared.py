"""Several hosts of one run on a machine each, whose workdir is in a folder that they share."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from machines import BUCKET, JOB, bucket_files, prepared, run, status

from scripts.launch import agent
from scripts.launch.jobs import Job
from scripts.launch.source import Source


def test_other_workers_join_and_send_only_what_they_print(without_processes, tmp_path, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setattr(agent, "_PATIENCE_SECONDS", 5)
    workdir = tmp_path / JOB.machine(BUCKET.url) / "workdir"
    workdir.mkdir(parents=True)
    (workdir / "run.json").write_text("{}")  # what the first has left in the end
    code, _, left = run(without_processes, worker=1, workers=2, shared=str(tmp_path))
    assert (code, left) == (0, {})
    assert set(bucket_files(without_processes)) == {"launch.json"}
    ((*_, last),) = without_processes.calls("rkbench")
    assert last == "--distributed"
    assert list(without_processes.object(f"{BUCKET.url}/launch/run/logs").glob("*-worker-1.txt"))


def test_several_hosts_without_a_shared_folder_are_refused_before_anything_is_installed(
    without_processes, tmp_path
):
    source = Source("git+https://example.com/rkbench.git")
    code, log, left = run(without_processes, workers=4, source=source)
    assert (code, left["exit"]) == (2, 2)
    assert log.count("\n") == 1
    assert "this machine has 4 hosts" in log
    assert "--shared=DIR" in log
    missing = tmp_path / "not mounted"
    code, log, left = run(without_processes, workers=4, source=source, shared=str(missing))
    assert (code, left["exit"]) == (2, 2)
    assert f"--shared={missing} is no folder here; --setup must mount it" in log
    assert not missing.exists()
    assert not without_processes.calls(os.path.basename(sys.executable))
    assert not without_processes.calls("rkbench")


def test_a_shared_workdir_is_whole_or_not_there(without_processes, tmp_path):
    world, folder = without_processes, tmp_path / JOB.machine(BUCKET.url)
    assert run(world, "--config.total_steps=3")[0] == 0  # by a single host, into the bucket
    world.write("faults.json", [["rsync.*fetched", 1, "broken off"]])
    options = {"workers": 2, "shared": str(tmp_path)}
    assert run(world, "--config.total_steps=6", **options)[0] == 1
    assert [path.name for path in folder.iterdir()] == ["fetched"]
    code, log, _ = run(world, "--config.total_steps=6", **options)
    assert (code, log.split()[-1]) == (0, "3")  # from step 3
    # What is there is newer than the bucket; but a lock in it may be that of a dead host.
    shutil.rmtree(world.object(BUCKET.workdir(JOB)))
    (folder / "workdir" / ".lock").write_text("")
    code, log, _ = run(world, "--config.total_steps=9", **options)
    assert (code, log.split()[-1]) == (0, "6")
    assert not (folder / "workdir" / ".lock").exists()
    files = bucket_files(world)
    assert "checkpoints/9/state" in files
    order = json.loads(files["launch.json"])  # that of this launch
    assert order["arguments"][-1] == "--config.total_steps=9"


def test_other_workers_wait_for_the_first_but_not_for_ever(
    without_processes, tmp_path, monkeypatch
):
    folder, slept = tmp_path / JOB.machine(BUCKET.url), []
    options = {"worker": 1, "workers": 2, "shared": str(tmp_path)}

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            (folder / "workdir").mkdir(parents=True)
            (folder / "workdir" / "run.json").write_text("{}")

    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setattr(agent, "_PATIENCE_SECONDS", 5)
    monkeypatch.setattr(agent.time, "sleep", sleep)
    assert run(without_processes, **options)[0] == 0
    assert slept.count(1) == 3
    shutil.rmtree(folder)
    monkeypatch.setattr(agent, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(agent.Agent, "_train", lambda *_: 2)  # the run says what is wrong
    assert run(without_processes, **options)[0] == 2
    assert not folder.exists()


def start_hosts(world, job, attempt, **options):
    """The agents of two hosts that have just been made, the second a little earlier."""
    hosts = {}
    for worker in (1, 0):
        here = prepared(world, job, f"attempt-{attempt}-host-{worker}", hosts=2, **options)
        hosts[worker] = subprocess.Popen(
            [sys.executable, "-IS", agent.__file__, here / "job.json"],
            env=os.environ | {"JOB_COMPLETION_INDEX": str(worker)},
            start_new_session=True,
        )
        time.sleep(0.3 if worker else 0)
    return hosts[0], hosts[1]


def printed(world, attempt, worker):
    return (world.folder / f"attempt-{attempt}-host-{worker}" / "log.txt").read_text()


def test_two_hosts_go_on_with_the_workdir_they_share_after_both_are_taken_away(world, tmp_path):
    """The bucket has step 3; the hosts are killed at step 10 or later and have sent nothing."""
    shared = tmp_path / "shared"
    job = Job("run", ("--config=x", "--config.total_steps=60"))
    options = {"shared": str(shared), "setup": f"mkdir -p '{shared}'\n", "upload_seconds": 60}
    prepared(world, job)
    state = world.object(f"{BUCKET.workdir(job)}/checkpoints/3/state")
    state.parent.mkdir(parents=True)
    state.write_text("sss")
    (state.parents[2] / "metrics.jsonl").write_text(
        "".join(f'{{"step": {i}}}\n' for i in (1, 2, 3))
    )
    hosts = start_hosts(world, job, 1, **options)
    workdir = shared / job.machine(BUCKET.url) / "workdir"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (
        list(workdir.glob("checkpoints/?[0-9]")) and printed(world, 1, 1)
    ):
        time.sleep(0.02)
    for host in hosts:
        os.killpg(host.pid, signal.SIGKILL)
        host.wait()
    assert printed(world, 1, 0).endswith("from step 3\n")
    assert "checkpoints/3/state" in bucket_files(world)
    assert [host.wait(timeout=20) for host in start_hosts(world, job, 2, **options)] == [0, 0]
    resumed = [int(printed(world, 2, worker).split()[-1]) for worker in (0, 1)]
    assert min(resumed) >= 10
    arguments = {tuple(call) for call in world.calls("rkbench")}
    assert arguments == {
        ("rkbench", "train", *job.arguments, f"--workdir={workdir}", "--distributed")
    }
    # Fetched once, and sent once, in three passes, by one of the two.
    passes = [call[-2:] for call in world.calls("gcloud", "rsync")]
    fetched, snapshot = str(workdir.with_name("fetched")), str(workdir.with_name("snapshot"))
    url = BUCKET.workdir(job)
    assert passes == [[url, fetched], *([[snapshot, url]] * 3)]
    assert json.loads(bucket_files(world)["run.json"])["status"] == "done"
    assert status(world, job)["exit"] == 0
