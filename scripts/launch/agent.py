"""Runs one run on a machine of a cloud: `python3 agent.py job.json`, on every worker.

The workdir lies on the machine's disk, where locks and atomic renames are what they are, and is
sent to the bucket every few minutes and in the end. Each start, the first or one after the machine
was taken away, begins with what the bucket has. Several hosts need one workdir that all see: it
lies in a folder that they share, which outlives them, and a start goes on with what is there.

Standard library of Python 3.9 only: it runs before anything is installed.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

EXIT_BAD_INPUT = 2
EXIT_AGAIN = 75  # EX_TEMPFAIL
_FINAL = (0, EXIT_BAD_INPUT)
# How long other workers wait for the first to make a shared workdir: less than the five minutes in
# which its run waits for theirs, so that all together find out where it is not shared.
_PATIENCE_SECONDS = 240
_SETUP = 'set -eo pipefail; . "$0"'  # of bash -c, before the path of the setup
_RSYNC = ("gcloud", "storage", "rsync", "--recursive")
_SYNC_EXACTLY = (*_RSYNC, "--delete-unmatched-destination-objects")


class BadInput(Exception):
    """What another attempt would not change."""


class Agent:
    """The run of one worker.

    Args:
      job: what the launcher wrote into job.json.
      here: the folder with the launcher's files, in which all else is made.
      worker, workers: which of how many this is.
    """

    def __init__(self, job, here, worker, workers):
        self._job, self._here, self._worker, self._workers = job, here, worker, workers
        folder = pathlib.Path(job["shared"]) if job["shared"] else here
        self._workdir, self._snapshot = folder / "workdir", folder / "snapshot"
        self._beat = 0
        self._child = None
        self._stopped = False
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._log_url = f"{job['launch']}/logs/{started}-worker-{worker}.txt"
        self._log = open(here / "log.txt", "ab")  # noqa: SIM115 - as long as the process

    def run(self):
        """Does everything; returns the exit code: the run's, or 75 where it was told to stop."""
        signal.signal(signal.SIGTERM, self._stop)
        code = 1
        try:
            self._report()
            self._make_workdir()
            code = self._train(self._command())
            if not self._upload_at_last() and code == 0:
                code = 1  # what the bucket does not have is not done
        except BadInput as error:
            self._note(f"error: {error}")
            code = EXIT_BAD_INPUT
        except (OSError, subprocess.SubprocessError) as error:
            self._note(f"failed: {error}")
        finally:
            if self._stopped and code not in _FINAL:
                code = EXIT_AGAIN
            self._report(code)
        return code

    def _stop(self, signum, frame):
        """On SIGTERM: the run saves and ends."""
        self._stopped = True
        if self._child is not None:
            self._child.terminate()

    def _make_workdir(self):
        """Makes the workdir what it was at the end of the last attempt."""
        if self._job["shared"]:
            self._find_shared()
        elif self._workers > 1:
            raise BadInput(
                f"this machine has {self._workers} hosts, which need one workdir that all see; "
                "name a folder that they share with --shared=DIR"
            )
        else:
            self._download(self._workdir)

    def _find_shared(self):
        """Makes a shared workdir what the bucket has, unless it is there: then it is newer."""
        if self._job["setup"]:
            self._call("bash", "-c", _SETUP, str(self._here / "setup.sh"))  # it may mount it
        folder = self._workdir.parent
        if not folder.parent.is_dir():
            raise BadInput(f"--shared={folder.parent} is no folder here; --setup must mount it")
        if self._worker != 0:
            self._wait_for_workdir()
            return
        if not self._workdir.exists():
            folder.mkdir(exist_ok=True)
            self._download(folder / "fetched")
            (folder / "fetched").rename(self._workdir)  # who sees it sees all of it
        told = self._workdir / "launch.json"
        told.unlink(
            missing_ok=True
        )  # a workdir may hold anything: nothing is written through a link
        shutil.copyfile(self._here / "job.json", told)
        # A file server may hold the lock of a host that is no more. The launcher sees to it that
        # there is one machine a run, and only its first worker takes the lock.
        (self._workdir / ".lock").unlink(missing_ok=True)

    def _wait_for_workdir(self):
        """Returns when the first worker has made it, or may never make it here."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not (self._workdir.exists() or self._stopped or time.monotonic() > end):
            time.sleep(1)

    def _download(self, folder):
        """Makes the folder what the bucket has; fails rather than beginning from nothing."""
        folder.mkdir(exist_ok=True)
        self._call(*_SYNC_EXACTLY, self._job["workdir"], str(folder))

    def _command(self):
        """The run's command, after installing what it needs."""
        arguments = [*self._job["arguments"], f"--workdir={self._workdir}"]
        if self._workers > 1:
            arguments.append("--distributed")
        command = [self._install(), "train", *arguments]
        if not self._job["setup"]:
            return command
        # The setup's variables are the run's, and its process becomes the run.
        return ["bash", "-c", f'{_SETUP}; exec "$@"', str(self._here / "setup.sh"), *command]

    def _install(self):
        """The path of rkbench, installed where it is not there yet."""
        source, venv = self._job["source"], self._here / "venv"
        if not source:
            return "rkbench"
        if not (venv / "bin" / "rkbench").exists():
            extra = f"[{self._job['extra']}]" if self._job["extra"] else ""
            file = self._here / source
            requirement = f"rkbench{extra} @ {file.as_uri() if file.exists() else source}"
            limits = ["--constraint=constraints.txt"] * self._job["constraints"]
            uv = (sys.executable, "-m", "uv")  # it brings the Python that rkbench needs
            self._call(sys.executable, "-m", "pip", "install", "--quiet", "uv")
            self._call(*uv, "venv", "--python=>=3.11,<3.14", str(venv))
            self._call(*uv, "pip", "install", f"--python={venv}/bin/python", *limits, requirement)
        return str(venv / "bin" / "rkbench")

    def _train(self, command):
        """Runs the command to its end, sending the workdir from time to time."""
        if self._stopped:
            return EXIT_AGAIN
        environment = dict(os.environ)
        if self._job["commit"]:
            environment["RKBENCH_COMMIT"] = self._job["commit"]
        self._child = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=environment, cwd=self._here
        )
        if self._stopped:  # between the test above and the start
            self._child.terminate()
        while True:
            try:
                return self._child.wait(timeout=self._job["upload_seconds"])
            except subprocess.TimeoutExpired:
                self._upload_or_note()
                self._report()

    def _upload_at_last(self):
        """Sends the workdir, trying a few times; whether the bucket has it."""
        for attempt in range(3):
            if self._upload_or_note():
                return True
            time.sleep(attempt)
        return False

    def _upload_or_note(self):
        try:
            self._upload()
        except (OSError, subprocess.SubprocessError) as error:
            self._note(f"not sent: {error}")
            return False
        return True

    def _upload(self):
        """Sends a snapshot: the log, then the checkpoints; only then goes what is obsolete.

        So the bucket never has a checkpoint that knows more than the log, and is never without a
        complete one. The first worker has the records and checkpoints.
        """
        if self._worker != 0:
            return
        staged, url = self._snapshot, self._job["workdir"]
        take_snapshot(self._workdir, staged)
        self._call(*_RSYNC, "--exclude=^checkpoints/", str(staged), url)
        self._call(*_RSYNC, str(staged), url)
        self._call(*_SYNC_EXACTLY, str(staged), url)

    def _report(self, code=None):
        """Sends the log and, from the first worker, that it is alive or how it ended."""
        self._beat += 1
        status = json.dumps({"beat": self._beat, "exit": code})
        self._log.flush()
        commands = [(("gcloud", "storage", "cp", str(self._here / "log.txt"), self._log_url), "")]
        if self._worker == 0:
            url = f"{self._job['launch']}/status.json"
            commands.append((("gcloud", "storage", "cp", "-", url), status))
        for command, text in commands:
            try:
                self._call(*command, text=text)
            except (OSError, subprocess.SubprocessError) as error:
                self._note(f"not sent: {error}")

    def _call(self, *command, text=""):
        """Runs a command; what it prints goes to the log where it fails."""
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._here,
        )
        if done.returncode:
            self._log.write(done.stdout)
            done.check_returncode()

    def _note(self, text):
        self._log.write(f"agent: {text}\n".encode())
        self._log.flush()


def take_snapshot(workdir, staged):
    """Copies the workdir of a run that goes on; the checkpoints first, as hard links if may be.

    The log is copied after them and so knows what they know. Checkpoints that are not complete yet
    are left out; the copy is made again where a file disappeared meanwhile.
    """
    for attempt in range(5):
        shutil.rmtree(staged, ignore_errors=True)
        try:
            if (workdir / "checkpoints").exists():
                unfinished = shutil.ignore_patterns("*.orbax-checkpoint-tmp*")
                shutil.copytree(
                    workdir / "checkpoints",
                    staged / "checkpoints",
                    copy_function=_link,
                    ignore=unfinished,
                )
            rest = shutil.ignore_patterns("checkpoints", ".lock", "*.tmp")
            shutil.copytree(workdir, staged, ignore=rest, dirs_exist_ok=True)
            return
        except OSError:  # shutil.Error is one
            if attempt == 4:
                raise
            time.sleep(0.2)


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links; a file that is gone fails below too
        shutil.copy2(source, target)


def find_place(job):
    """Which worker this is, and how many there are."""
    if job["hosts"] is not None:
        return int(os.environ.get("JOB_COMPLETION_INDEX", "0")), job["hosts"]
    endpoints = _metadata("worker-network-endpoints").split(",")
    return int(_metadata("agent-worker-number")), len(endpoints)


def _metadata(name):
    """An attribute of this machine; asks for two minutes, as the network may be just coming up."""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{name}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    for _ in range(24):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        except OSError as error:
            problem = error
            time.sleep(5)
    raise SystemExit(f"agent: {url}: {problem}")


def main():
    """Runs the job that the command line names."""
    file = pathlib.Path(sys.argv[1]).absolute()
    job = json.loads(file.read_text(encoding="utf-8"))
    sys.exit(Agent(job, file.parent, *find_place(job)).run())


if __name__ == "__main__":
    main()
