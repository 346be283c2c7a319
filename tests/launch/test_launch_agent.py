"""What runs on a machine: it keeps the bucket sound through kills, and says how the run ended."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import standins
from machines import BUCKET, bucket_files, prepared, run, status

from rkbench.trainer import checkpoint
from scripts.launch import __main__ as launch
from scripts.launch import agent
from scripts.launch.jobs import Job
from scripts.launch.source import Source

NASTY = """--config.note=it's "50%", $HOME `id` \\ (a, b)"""


def test_the_bucket_gets_the_workdir_the_log_and_the_exit_code(without_processes):
    code, log, left = run(without_processes, NASTY, setup="export SETUP='as set up'\n")
    assert code == 0
    assert "setup=as set up" in log
    assert (left["exit"], left["beat"]) == (0, 2)
    files = bucket_files(without_processes)
    assert json.loads(files["run.json"])["status"] == "done"
    checkpoints = {name for name in files if name.startswith("checkpoints")}
    assert checkpoints == {"checkpoints/4/state", "checkpoints/5/state"}
    assert files["metrics.jsonl"].count("\n") == 5
    (sent,) = without_processes.object(f"{BUCKET.url}/launch/run/logs").glob("*-worker-0.txt")
    assert "from step 0" in sent.read_text()
    ((*_, given, workdir),) = without_processes.calls("rkbench")
    assert (given, workdir.partition("=")[0]) == (NASTY, "--workdir")


@pytest.mark.parametrize("code", [1, 2, 75])
def test_the_exit_code_is_the_runs(without_processes, code):
    assert run(without_processes, f"--config.exit={code}")[0] == code
    assert status(without_processes, Job("run", ("--config=x",)))["exit"] == code


def test_where_the_bucket_cannot_be_read_nothing_starts_and_nothing_is_overwritten(
    without_processes,
):
    world = without_processes
    assert run(world)[0] == 0
    before = bucket_files(world)
    world.write("faults.json", [["rsync", 1, "403 Forbidden"]])
    (world.folder / "machine" / "workdir").rename(world.folder / "lost")
    code, log, left = run(world, "--config.total_steps=9")
    assert (code, left["exit"]) == (1, 1)
    assert "403 Forbidden" in log
    assert bucket_files(world) == before
    assert len(world.calls("rkbench")) == 1


def test_a_run_whose_end_the_bucket_does_not_have_is_not_done(without_processes):
    without_processes.write("faults.json", [["rsync.*snapshot", 9, "503"]])
    code, _, left = run(without_processes)
    assert (code, left["exit"]) == (1, 1)


def test_an_upload_that_fails_once_is_tried_again(without_processes):
    without_processes.write("faults.json", [["rsync.*snapshot", 1, "503"]])
    assert run(without_processes)[0] == 0


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_the_bucket_can_be_resumed_from_wherever_an_upload_broke_off(without_processes, passes):
    """The three passes of an upload: the log, the checkpoints, what is obsolete."""
    world = without_processes
    assert run(world, "--config.total_steps=3")[0] == 0
    calls = world.call

    def broken(arguments, *rest):
        if "rsync" in arguments and "snapshot" in " ".join(arguments):
            broken.passes += 1
            if broken.passes > passes:
                return 1, "", "broken off"
        return calls(arguments, *rest)

    broken.passes = 0
    world.call = broken
    assert run(world, "--config.total_steps=8")[0] == 1
    files = bucket_files(world)
    steps = [json.loads(line)["step"] for line in files["metrics.jsonl"].splitlines()]
    saved = {int(name.split("/")[1]): text for name, text in files.items() if "state" in name}
    assert max(saved) <= max(steps)
    assert saved[max(saved)] == "s" * max(saved)
    assert max(saved) == (3 if passes < 2 else 8)


def test_without_hard_links_a_snapshot_is_a_copy(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(agent.os, "link", refuse)
    state = tmp_path / "workdir" / "checkpoints" / "1" / "state"
    state.parent.mkdir(parents=True)
    state.write_text("s")
    agent.take_snapshot(tmp_path / "workdir", tmp_path / "snapshot")
    assert (tmp_path / "snapshot" / "checkpoints" / "1" / "state").read_text() == "s"


def test_what_is_installed(without_processes):
    found = Source("rkbench-0123.tar.gz", {"rkbench-0123.tar.gz": b"", "constraints.txt": b""}, "c")
    code, log, _ = run(without_processes, source=found, extra="tpu")
    assert code == 1  # nothing was installed, really
    assert "No such file" in log
    calls = without_processes.calls(os.path.basename(sys.executable))
    here = without_processes.folder / "machine"
    assert [call[1:] for call in calls] == [
        ["-m", "pip", "install", "--quiet", "uv"],
        ["-m", "uv", "venv", "--python=>=3.11,<3.14", f"{here}/venv"],
        [
            *("-m", "uv", "pip", "install", f"--python={here}/venv/bin/python"),
            *(
                "--constraint=constraints.txt",
                f"rkbench[tpu] @ {here.as_uri()}/rkbench-0123.tar.gz",
            ),
        ],
    ]
    # constraints.txt is still there, but belongs to what was installed before.
    run(without_processes, source=Source("git+https://example.com/x"))
    (*_, last) = without_processes.calls(os.path.basename(sys.executable))
    assert last[-2:] == [f"--python={here}/venv/bin/python", "rkbench @ git+https://example.com/x"]


def test_a_snapshot_of_a_run_that_goes_on_never_has_a_checkpoint_ahead_of_its_log(tmp_path):
    workdir, staged = tmp_path / "workdir", tmp_path / "snapshot"
    over = threading.Event()

    def write():
        step = 0
        while not over.is_set():
            step += 1
            with open(workdir / "metrics.jsonl", "a") as log:
                log.write(f"{step}\n")
            unfinished = workdir / "checkpoints" / f"{step}.orbax-checkpoint-tmp"
            unfinished.mkdir(parents=True)
            for part in range(3):
                (unfinished / f"part-{part}").write_text(str(step))
            unfinished.rename(workdir / "checkpoints" / str(step))
            if step > 2:
                agent.shutil.rmtree(workdir / "checkpoints" / str(step - 2))
            time.sleep(0.001)

    workdir.mkdir()
    writer = threading.Thread(target=write)
    writer.start()
    newest = []
    try:
        while len(newest) < 30:
            with contextlib.suppress(OSError):  # five times in a row something disappeared
                agent.take_snapshot(workdir, staged)
                steps = sorted(int(path.name) for path in staged.glob("checkpoints/*"))
                if steps:
                    newest.append(steps[-1])
                    assert len(list((staged / "checkpoints" / str(steps[-1])).iterdir())) == 3
                    assert int((staged / "metrics.jsonl").read_text().split()[-1]) >= steps[-1]
    finally:
        over.set()
        writer.join()
    assert newest[-1] > newest[0]


def test_real_checkpoints_survive_the_way_through_the_bucket(world, tmp_path):
    """A bucket keeps no empty folders; the digest would notice what is missing."""
    state = {
        "params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "step": np.zeros((), np.int32),
    }
    saved = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints" / "seed-0")
    for step in (5, 10, 15):
        saved.save(step, state | {"step": np.asarray(step, np.int32)}, {"seconds": 1.5})
        saved.wait()
    agent.take_snapshot(tmp_path / "run", tmp_path / "snapshot")
    for places in (["snapshot", "gs://bucket/run"], ["gs://bucket/run", "new"]):
        standins.rsync(standins.Call(world, places, "", str(tmp_path)))
    saved.close()
    copied = checkpoint.Checkpoints(tmp_path / "new" / "checkpoints" / "seed-0")
    restored = copied.restore(jax.tree.map(jnp.asarray, state))
    copied.close()
    assert restored is not None
    assert (restored.step, restored.progress) == (15, {"seconds": 1.5})
    np.testing.assert_array_equal(restored.state["params"]["w"], state["params"]["w"])
    assert not list((tmp_path / "new").glob("damaged-*"))


def test_sigterm_saves_sends_and_asks_for_another_start(world):
    job = Job("run", ("--config=x", "--config.total_steps=1000"))
    here = prepared(world, job, upload_seconds=60)
    process = subprocess.Popen([sys.executable, "-IS", agent.__file__, here / "job.json"])
    written = here / "workdir" / "metrics.jsonl"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (
        written.exists() and written.read_text().count("\n") > 2
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert status(world, job)["exit"] == 75
    steps = bucket_files(world)["metrics.jsonl"].count("\n")
    assert f"checkpoints/{steps}/state" in bucket_files(world)


class Metadata(http.server.BaseHTTPRequestHandler):
    values = types.MappingProxyType(
        {"agent-worker-number": "2", "worker-network-endpoints": "a:1:b,c:2:d,e:3:f"}
    )

    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.values[self.path.rsplit("/", 1)[1]].encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def metadata(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def test_which_worker_a_machine_is(metadata, monkeypatch):
    assert agent.find_place({"hosts": None}) == (2, 3)
    assert agent.find_place({"hosts": 1}) == (0, 1)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert agent.find_place({"hosts": 4}) == (3, 4)


def test_a_run_on_a_spot_machine_from_launcher_to_bucket_through_a_kill(
    world, metadata, monkeypatch, tmp_path, capsys
):
    """Real processes all the way: the launcher, the startup script, the agent and the run."""
    monkeypatch.setattr(
        Metadata, "values", {"agent-worker-number": "0", "worker-network-endpoints": "a"}
    )
    monkeypatch.setattr(launch.signal, "signal", lambda *_: None)
    world.write("scenario.json", [10, 0])  # killed with -9 when the tenth step is in the bucket
    setup = tmp_path / "setup.sh"
    setup.write_text("export SETUP=yes\n")
    arguments = ["tpu", "--name=it's a run", "--output=gs://bucket/paper", "--zone=z", "--spot"]
    arguments += ["--accelerator=v5litepod-1", "--runtime=r", "--source=installed"]
    arguments += ["--poll-seconds=0.2", "--upload-seconds=0.3", "--attempts=1", f"--setup={setup}"]
    train = ["--config=configs/x.py:rk4", NASTY, "--config.total_steps=30", "--config.hangs=20"]
    monkeypatch.setattr(sys, "argv", ["launch", *arguments, "--", *train])
    with pytest.raises(SystemExit) as stop:
        launch.main()
    said = capsys.readouterr().out
    assert stop.value.code == 0, said
    assert "starting again (preemption 1)" in said
    first, second = world.calls("rkbench")
    assert first[2:-1] == second[2:-1] == train
    logs = sorted(world.object("gs://bucket/paper/launch/it's a run/logs").glob("*.txt"))
    assert len(logs) == 2  # the first may be empty: the machine was killed before it sent it
    printed = logs[1].read_text()
    assert "setup=yes" in printed
    resumed = int(printed.split("from step ")[1].split()[0])
    assert 10 <= resumed <= 20
    files = bucket_files(world, "it's a run")
    assert json.loads(files["run.json"])["status"] == "done"
    assert {"checkpoints/29/state", "checkpoints/30/state"} <= set(files)
    assert not [name for name in files if "tmp" in name]
    assert [
        call[4] for call in world.calls("gcloud", "queued-resources") if call[4] != "describe"
    ] == [
        *("create", "delete"),
        *("create", "delete"),
    ]
