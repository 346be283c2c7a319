"""TPU VMs and GKE with stand-ins for gcloud and kubectl: preemption, failures, lack of capacity."""

import subprocess
import threading

import pytest
import standins

from scripts.launch import shell
from scripts.launch.bucket import Bucket
from scripts.launch.gke import GKE
from scripts.launch.jobs import Job
from scripts.launch.kit import Kit
from scripts.launch.source import Source
from scripts.launch.tpu import TPU
from scripts.launch.watch import Limits, run_all

BUCKET = Bucket("gs://bucket/paper")
JOB = Job("a, 'run'", ("--config=configs/x.py:rk4", "--config.note=it's, $HOME"), (0,))
DONE = {f"{BUCKET.workdir(JOB)}/run.json": {"status": "done", "seeds": [{"seed": 0}]}}


def ended(code, beat=9):
    return {f"{BUCKET.launch(JOB)}/status.json": {"beat": beat, "exit": code}}


WAITS = {"state": "WAITING_FOR_RESOURCES"}
RUNS = {"state": "ACTIVE", "objects": ended(None, beat=1)}
PREEMPTED = {"state": "SUSPENDED"}
FINISHED = {"state": "ACTIVE", "objects": DONE | ended(0)}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The stand-ins, called without processes, which hundreds of calls would spend seconds on."""
    world = standins.World(tmp_path / "world").install()

    def run(arguments, input, cwd, **_):
        code, output, error = world.call(list(arguments), input, cwd or ".")
        return subprocess.CompletedProcess(arguments, code, output, error)

    monkeypatch.setattr(shell.subprocess, "run", run)
    return world


def tpu(**changes):
    kit = Kit(BUCKET, Source(), "tpu")
    return TPU(kit, "z", "", "v5litepod-1", "v2", spot=True, **changes)


def gke():
    return GKE(Kit(BUCKET, Source(), hosts=1), "image", "", "", 1, spot=True, attempts=2)


def start(world, place, *lives, jobs=(JOB,), said=None, **limits):
    """Runs the launcher on these lives of each machine; {name: why it is not finished}."""
    if lives:
        world.write("scenario.json", lives)
    fast = Limits(**{"poll_seconds": 0.01, "silent_seconds": 30, "attempts": 2} | limits)
    said = [] if said is None else said
    return run_all(jobs, place, fast, said.append, threading.Event())


def verbs(world):
    """What was done to machines, in order, each state of waiting once."""
    calls = world.calls("gcloud", "queued-resources")
    return [call[4] for call in calls if call[4] != "describe"]


def test_a_run_waits_for_capacity_runs_and_leaves_no_machine(world):
    said = []
    assert start(world, tpu(), [WAITS, WAITS, RUNS, FINISHED], said=said) == {}
    assert verbs(world) == ["create", "delete"]
    (create,) = world.calls("gcloud", "create")
    assert create[5:] == [
        JOB.machine(BUCKET.url),
        "--zone=z",
        f"--node-id={JOB.machine(BUCKET.url)}",
        "--accelerator-type=v5litepod-1",
        "--runtime-version=v2",
        "--spot",
        "--metadata-from-file=startup-script=startup.sh",
    ]
    assert [line.partition(": ")[2] for line in said] == [
        "machine asked for",
        "waits for a machine",
        "runs",
        "machine deleted",
        "finished: done",
    ]


def test_a_preempted_run_goes_on_on_a_new_machine_as_often_as_need_be(world):
    lives = [[RUNS, {"state": "SUSPENDING"}], [WAITS, PREEMPTED], [RUNS, PREEMPTED], [FINISHED]]
    assert start(world, tpu(), *lives, attempts=1) == {}  # a preemption is no failure
    assert verbs(world) == ["create", "delete"] * 4


def test_preemptions_are_capped(world):
    problems = start(world, tpu(), [PREEMPTED], preemptions=3)
    assert problems == {JOB.name: "given up after 3 preemptions"}
    assert verbs(world) == ["create", "delete"] * 3


def test_a_run_that_saved_and_asks_for_another_start_gets_it(world):
    again = {"state": "ACTIVE", "objects": ended(75)}
    assert start(world, tpu(), [RUNS, again], [FINISHED], attempts=1) == {}
    assert verbs(world) == ["create", "delete"] * 2


@pytest.mark.parametrize(
    ("life", "message"),
    [
        ([{"state": "FAILED"}], "given up: the machine failed"),
        ([RUNS, {"error": "NOT_FOUND"}], "given up: the machine is not there"),
        ([{"state": "ACTIVE", "objects": ended(1)}], "failed (exit code 1); what it printed: gs:"),
        ([{"state": "ACTIVE", "objects": ended(-9)}], "failed (exit code -9)"),
        ([{"state": "ACTIVE", "objects": ended(0)}], "no record of a finished run"),
        ([RUNS], "no report for 0 s"),
        ([RUNS, {"error": "UNAVAILABLE: try later"}], "no report for 0 s"),
    ],
)
def test_failures_are_tried_again_up_to_the_cap_and_leave_no_machine(world, life, message):
    problems = start(world, tpu(), life, silent_seconds=0.2)
    assert message in problems[JOB.name]
    assert verbs(world) == ["create", "delete"] * 2


def test_a_failure_of_what_turns_out_to_be_taken_away_is_a_preemption(world):
    """When one of several hosts is taken away, the run ends on the others first."""
    ends = {"state": "ACTIVE", "objects": ended(1)}
    lives = [[RUNS, ends, PREEMPTED], [{"state": "SUSPENDING", "objects": ended(1)}], [FINISHED]]
    assert start(world, tpu(), *lives, attempts=1) == {}
    assert verbs(world) == ["create", "delete"] * 3


def test_an_answer_that_fails_to_come_for_a_while_is_no_failure(world):
    gap = {"error": "UNAVAILABLE: try later"}
    assert start(world, tpu(), [RUNS, gap, gap, FINISHED], attempts=1) == {}
    world.write("faults.json", [["storage cat.*run.json", 2, "503 Service Unavailable"]])
    assert start(world, tpu(), attempts=1) == {}


def test_bad_input_is_never_tried_again(world):
    problems = start(world, tpu(), [{"state": "ACTIVE", "objects": ended(2)}], attempts=5)
    assert "bad input, not tried again (exit code 2)" in problems[JOB.name]
    assert verbs(world) == ["create", "delete"]


def test_no_quota_is_a_failure_that_another_attempt_may_not_meet(world):
    quota = "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptibleLitepod' has been exceeded."
    world.write("faults.json", [["queued-resources create", 1, quota]])
    said = []
    assert start(world, tpu(), [FINISHED], said=said) == {}
    assert any("attempt 1 of 2 failed" in line and "Quota limit" in line for line in said)


def test_a_machine_that_cannot_be_deleted_is_reported_with_the_command(world):
    world.write("faults.json", [["queued-resources delete", 9, "PERMISSION_DENIED"]])
    problems = start(world, tpu(), [FINISHED])
    assert "THE MACHINE IS STILL THERE" in problems[JOB.name]
    assert f"queued-resources delete {JOB.machine(BUCKET.url)} --zone=z" in problems[JOB.name]
    assert len(world.calls("gcloud", "delete")) == 5


def test_started_again_a_finished_run_is_not_repeated(world):
    assert start(world, tpu(), [FINISHED]) == {}
    before = len(world.calls("gcloud", "queued-resources"))
    assert start(world, tpu()) == {}
    assert len(world.calls("gcloud", "queued-resources")) == before


def test_started_again_a_machine_that_runs_is_taken_over_and_one_that_is_left_behind_is_not(world):
    name = JOB.machine(BUCKET.url)
    world.write(f"machines/{name}.json", {"life": 0, "step": 0, "there": True})
    assert start(world, tpu(), [RUNS, FINISHED]) == {}
    assert verbs(world) == ["delete"]
    world.object(f"{BUCKET.workdir(JOB)}/run.json").unlink()
    world.object(f"{BUCKET.launch(JOB)}/status.json").unlink()
    world.write(f"machines/{name}.json", {"life": 0, "step": 0, "there": True})
    assert start(world, tpu(), [PREEMPTED], [FINISHED]) == {}
    assert verbs(world)[1:] == ["delete", "create", "delete"]


def stopping(text, stop):
    """Tells the launcher to stop as soon as it says this."""
    return lambda said: stop.set() if said.endswith(text) else None


def test_told_to_stop_it_deletes_its_machines_and_starts_no_more(world):
    stop, jobs = threading.Event(), [JOB, Job("second", JOB.arguments)]
    world.write("scenario.json", [[RUNS]])
    limits = Limits(at_once=1, poll_seconds=0.01)
    problems = run_all(jobs, tpu(), limits, stopping(": runs", stop), stop)
    assert problems == {JOB.name: "stopped", "second": "stopped"}
    assert verbs(world) == ["create", "delete"]


def test_so_many_machines_at_once_and_no_more(world):
    jobs = [Job(f"run-{i}", JOB.arguments) for i in range(5)]

    def life(job):
        record = {f"{BUCKET.workdir(job)}/run.json": {"status": "done"}}
        report = {f"{BUCKET.launch(job)}/status.json": {"beat": 2, "exit": 0}}
        return [WAITS, WAITS, {"state": "ACTIVE", "objects": record | report}]

    world.write("scenario.json", {job.machine(BUCKET.url): [life(job)] for job in jobs})
    assert start(world, tpu(), jobs=jobs, at_once=2) == {}
    there = peak = 0
    for verb in verbs(world):
        there += {"create": 1, "delete": -1}[verb]
        peak = max(peak, there)
    assert (len(verbs(world)), there, peak) == (10, 0, 2)


def test_a_jobset_is_applied_watched_and_deleted(world):
    said = []
    completed = {"state": "StartupPolicyCompleted Completed/0", "objects": DONE | ended(0)}
    assert start(world, gke(), [{"state": "/"}, {"state": "/1"}, completed], said=said) == {}
    verbs = [call[1] for call in world.calls("kubectl")]
    assert verbs == ["get", "apply", "get", "get", "get", "delete"]
    assert [line.partition(": ")[2] for line in said][1:3] == ["waits for a machine", "runs"]
    assert world.read("jobset.json")["metadata"]["annotations"]["rkbench/run"] == JOB.name


def test_a_jobset_that_failed_has_used_up_its_attempts(world):
    failed = {"state": "Failed/0", "objects": ended(1)}
    problems = start(world, gke(), [{"state": "/1"}, failed], attempts=5)
    assert "failed (exit code 1)" in problems[JOB.name]
    assert len(world.calls("kubectl", "apply")) == 1
    assert world.calls("kubectl", "delete")


def test_an_exit_code_of_a_pod_is_not_the_end_of_a_jobset(world):
    again = {"state": "/1", "objects": ended(75)}
    completed = {"state": "Completed/0", "objects": DONE | ended(0)}
    assert start(world, gke(), [again, again, completed]) == {}
    assert len(world.calls("kubectl", "apply")) == 1


def test_told_to_stop_jobsets_go_on(world):
    stop = threading.Event()
    world.write("scenario.json", [[{"state": "/1"}]])
    problems = run_all([JOB], gke(), Limits(poll_seconds=0.01), stopping(": runs", stop), stop)
    assert problems == {JOB.name: "stopped"}
    assert not world.calls("kubectl", "delete")


def test_what_exit_codes_mean_to_a_jobset():
    spec = gke().manifest(JOB)["spec"]
    (run,) = spec["replicatedJobs"]
    job = run["template"]["spec"]
    rules = [
        (rule["action"], rule.get("onExitCodes", {}).get("values"))
        for rule in job["podFailurePolicy"]["rules"]
    ]
    assert rules == [("FailJob", [2]), ("Ignore", [75]), ("Ignore", None)]
    assert (job["backoffLimit"], spec["failurePolicy"]["maxRestarts"]) == (0, 1)
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a pod failure policy needs it
