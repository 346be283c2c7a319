"""Stand-ins for gcloud, kubectl, SLURM's commands and rkbench, as programs on a PATH of their own.

`World.install` makes them; each is this file under another name. Every call is recorded in
calls.jsonl; a bucket is a folder. What a machine does is in scenario.json: a list of lives, or
{machine: such a list}. A life is a list of steps that `describe` (or `kubectl get`) goes through,
the last one again and again: {"state": what it says, "objects": {URL: what is in the bucket then}}
or {"error": what it fails with}. Where lives are numbers, machines run their startup script, and
are taken away when the bucket has the checkpoint of that step (0: never).
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import typing

NAMES = ("gcloud", "kubectl", "sbatch", "srun", "scancel", "scontrol", "systemd-run", "rkbench")
CHECKPOINTS = "**/checkpoints/*/state"


class World:
    """The folder with all that the stand-ins share."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.bin = self.folder / "bin"

    def install(self):
        self.bin.mkdir(parents=True)
        for name in NAMES:
            program = self.bin / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {name} "$@"\n')
            program.chmod(0o755)
        self.write("scenario.json", [[]])
        self.write("faults.json", [])
        return self

    @property
    def environment(self):
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {"STANDINS": str(self.folder), "PATH": path, "CLOUDSDK_CONFIG": str(self.folder)}

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(content))
        temporary.replace(path)

    def read(self, name, default: typing.Any = None):
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else default

    def object(self, url):
        return self.folder / "bucket" / url.removeprefix("gs://")

    def calls(self, program, *words):
        """All calls of the program that have these words, in order."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [c for c in calls if c[0] == program and all(word in c for word in words)]

    def call(self, arguments, stdin="", folder="."):
        """Does what a program of the name arguments[0] would; (code, output, errors)."""
        with open(self.folder / "calls.jsonl", "a") as file:
            file.write(json.dumps(arguments) + "\n")
        name, *rest = arguments
        try:
            self._fail_as_asked(arguments)
            output = globals()[name.replace("-", "_")](Call(self, rest, stdin, folder))
        except Failure as error:
            return 1, "", f"ERROR: {error}\n"
        return 0, output or "", ""

    def _fail_as_asked(self, arguments):
        """By faults.json: [[pattern, times, message], ...]."""
        faults = self.read("faults.json", [])
        for fault in faults:
            pattern, times, message = fault
            if times and re.search(pattern, " ".join(arguments)):
                fault[1] -= 1
                self.write("faults.json", faults)
                raise Failure(message)


class Call(typing.NamedTuple):
    """One call of a program."""

    world: World
    arguments: list
    stdin: str
    folder: str

    def path(self, place):
        """Of a URL of the bucket, or of a file."""
        if place.startswith("gs://"):
            return self.world.object(place)
        return pathlib.Path(self.folder, place)


class Failure(Exception):
    """The program fails with this message and exit code 1."""


def gcloud(call):
    if call.arguments[0] == "storage":
        verb = {"cat": cat, "cp": copy, "rsync": rsync}[call.arguments[1]]
        return verb(call._replace(arguments=call.arguments[2:]))
    assert call.arguments[:3] == ["compute", "tpus", "queued-resources"], call.arguments
    return machine(call, call.arguments[3], call.arguments[4])


def cat(call):
    path = call.path(call.arguments[0])
    if not path.is_file():
        raise Failure(f"The following URLs matched no objects or files:\n-{call.arguments[0]}")
    return path.read_text()


def copy(call):
    *sources, target = call.arguments
    for source in sources:
        at = call.path(source)
        for file in at.parent.glob("*") if at.name == "*" else [at]:
            to = call.path(target)
            to = to / file.name if target.endswith(("/", ".")) else to
            to.parent.mkdir(parents=True, exist_ok=True)
            if source == "-":
                to.write_text(call.stdin)
            elif file.is_file():
                shutil.copy2(file, to)
            else:
                raise Failure(f"The following URLs matched no objects or files:\n-{source}")


def rsync(call):
    flags = [argument for argument in call.arguments if argument.startswith("--")]
    places = [argument for argument in call.arguments if not argument.startswith("--")]
    source, target = map(call.path, places)
    if not source.is_dir():
        raise Failure(f"Did not find existing container at: {places[0]}")
    excluded = [flag.removeprefix("--exclude=") for flag in flags if flag.startswith("--exclude=")]

    def files(folder):
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        return {name for name in names if not any(re.match(e, name) for e in excluded)}

    for name in sorted(files(source)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
    if "--delete-unmatched-destination-objects" in flags:
        for name in files(target) - files(source):
            (target / name).unlink()


def machine(call, verb, name):
    """A queued resource, or (by kubectl) a JobSet."""
    world = call.world
    lives, key = world.read("scenario.json"), f"machines/{name}.json"
    lives = lives[name] if isinstance(lives, dict) else lives
    state = world.read(key, {"life": -1, "step": 0, "there": False})
    if verb != "create" and not state["there"]:
        raise Failure(f"NOT_FOUND: NotFound: {name}")
    if verb == "create":
        if state["there"]:
            raise Failure(f"ALREADY_EXISTS: {name}")
        state = {"life": state["life"] + 1, "step": 0, "there": True}
        if isinstance(lives[0], int):
            boot(call, name)
    elif verb == "delete":
        state["there"] = False
        shutdown(world, name, signal.SIGTERM)
    else:
        life, step = lives[min(state["life"], len(lives) - 1)], state["step"]
        state["step"] += 1
        world.write(key, state)
        if not isinstance(life, int):
            return look(world, life[min(step, len(life) - 1)])
        saved = [int(path.parent.name) for path in world.folder.glob(f"bucket/{CHECKPOINTS}")]
        if life and max(saved, default=0) >= life:
            shutdown(world, name, signal.SIGKILL)
            return "SUSPENDED\n"
        return "ACTIVE\n"
    world.write(key, state)
    return ""


def look(world, step):
    for name, content in step.get("objects", {}).items():
        path = world.object(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    if "error" in step:
        raise Failure(step["error"])
    return step["state"] + "\n"


def boot(call, name):
    """Runs the startup script in a folder of the machine's own."""
    home = call.world.folder / "homes" / f"{name}-{time.time_ns()}"
    home.mkdir(parents=True)
    script = call.path("startup.sh").read_text().replace("/var/lib/rkbench", str(home))
    with open(home / "console.txt", "w") as console:
        process = subprocess.Popen(
            ["bash", "-c", script],
            stdout=console,
            stderr=console,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    call.world.write(f"processes/{name}.json", process.pid)


def shutdown(world, name, number):
    process = world.read(f"processes/{name}.json")
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, number)


def kubectl(call):
    if call.arguments[0] == "apply":
        manifest = json.loads(call.stdin)
        call.world.write("jobset.json", manifest)
        return machine(call, "create", manifest["metadata"]["name"])
    verb = "delete" if call.arguments[0] == "delete" else "describe"
    return machine(call, verb, call.arguments[1].removeprefix("jobset/"))


def sbatch(call):
    (call.world.folder / "batch.sh").write_text(call.stdin)
    return "4711\n"


def srun(call):
    """The run itself, whose process id scancel finds."""
    call.world.write("step.json", os.getpid())
    os.execvp(call.arguments[0], call.arguments)


def scancel(call):
    assert call.arguments[0] == "--signal=TERM"
    os.kill(call.world.read("step.json"), signal.SIGTERM)


def scontrol(call):
    assert call.arguments[0] == "requeue"


def systemd_run(call):
    command = call.arguments[call.arguments.index("python3") :]
    os.execv(sys.executable, [sys.executable, "-IS", *command[1:]])


def rkbench(call):
    """Trains: one step every 20 ms up to `--config.total_steps`; resumes; may fail.

    `--config.exit=CODE` ends it at once; `--config.crashes=N` does so at its second step, with code
    1, the first N times; `--config.hangs=STEP` makes it wait there, unless it resumed. Of several
    hosts (--distributed) the first writes, and the others end when it has.
    """
    options = dict(argument.split("=", 1) for argument in call.arguments if "=" in argument)
    workdir = pathlib.Path(options["--workdir"])
    print(f"rkbench commit={os.environ.get('RKBENCH_COMMIT')} setup={os.environ.get('SETUP')}")
    if "--config.exit" in options:
        sys.exit(int(options["--config.exit"]))
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    saved = sorted(int(path.name) for path in workdir.glob("checkpoints/*"))
    step = saved[-1] if saved else 0
    print(f"from step {step}", flush=True)
    if "--distributed" in call.arguments and os.environ.get("JOB_COMPLETION_INDEX", "0") != "0":
        for _ in range(500):
            if (workdir / "run.json").exists():
                return
            time.sleep(0.02)
        sys.exit("the first has not come to its end")
    hangs = 0 if step else int(options.get("--config.hangs", 0))
    crashes = len(list(workdir.glob("crash-*")))
    while step < int(options.get("--config.total_steps", 5)) and not stopped:
        time.sleep(0.02)
        if hangs and step == hangs:
            continue
        step += 1
        if step == 2 and crashes < int(options.get("--config.crashes", 0)):
            (workdir / f"crash-{crashes}").write_text("x")
            sys.exit(1)
        with open(workdir / "metrics.jsonl", "a") as log:
            log.write(json.dumps({"step": step}) + "\n")
        unfinished = workdir / "checkpoints" / f"{step}.orbax-checkpoint-tmp"
        unfinished.mkdir(parents=True)
        (unfinished / "state").write_text("s" * step)
        unfinished.rename(unfinished.with_suffix(""))
        if step > 2:
            shutil.rmtree(workdir / "checkpoints" / str(step - 2), ignore_errors=True)
    if stopped:
        sys.exit(75)
    record = {"status": "done", "seeds": [{"seed": 0}]}
    (workdir / "run.json").write_text(json.dumps(record))


def main():
    arguments = sys.argv[1:]
    stdin = sys.stdin.read() if {"-", "--filename=-", "--parsable"} & set(arguments) else ""
    code, output, errors = World(os.environ["STANDINS"]).call(arguments, stdin)
    print(output, end="")
    print(errors, end="", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
