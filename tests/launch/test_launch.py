"""The launchers' command line: what --dry-run prints, what is refused, and what is sent along."""

import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest
import standins

from rkbench import errors
from scripts.launch import __main__ as launch
from scripts.launch import kit, source
from scripts.launch.jobs import Job, read_manifest
from scripts.launch.tpu import has_several_hosts

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "launch"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMED = f"--source=git+https://example.com/rkbench.git@{COMMIT}"
TRAIN = ("--", "--config=configs/digits_mlp.py:rk4")
# What a shell, sbatch or a list of gcloud would take apart.
NASTY = """--config.note=it's "50%", $HOME `id` \\ (a, b)"""

PLACES = {
    "tpu": (
        *("--output=gs://bucket/paper", "--zone=us-west4-a", "--project=mine", "--spot", NAMED),
        *("--accelerator=v5litepod-1", "--runtime=v2-alpha-tpuv5-lite"),
        "--option=--internal-ips",
    ),
    "gke": (
        *("--output=gs://bucket/paper", "--image=example.com/rkbench:1", "--spot", "--hosts=2"),
        *("--accelerator=tpu-v5-lite-podslice", "--topology=2x4", "--chips=4"),
        *("--service-account=trainer", "--option=--context=cluster"),
        *("--shared=/mnt/shared", "--volume=rkbench-workdirs"),
    ),
    "slurm": (
        *("--output=/shared/100% mine", "--at-once=2", "--option=--partition=gpu"),
        *("--option=--time=04:00:00", "--option=--comment=it's, mine"),
    ),
}


def run(monkeypatch, *arguments):
    """Runs the command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["launch", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        launch.main()
    return stop.value.code


@pytest.fixture
def manifest(tmp_path):
    def entry(name, *arguments, hours=None):
        return {
            "name": name,
            "arguments": ["--config=configs/digits_mlp.py:rk4", *arguments],
            "seeds": [0, 1],
            "grad_evals": 4000,
            "hours": hours,
        }

    runs = [entry("digits-rk4", "--config.seeds=(0, 1)", hours=0.25), entry("a, 'b' \"c\"", NASTY)]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"runs": runs}))
    return path


@pytest.mark.parametrize("place", PLACES)
def test_a_dry_run_prints_every_command_and_manifest_and_starts_nothing(
    place, monkeypatch, manifest, tmp_path, capsys
):
    """The golden files are what this command prints; RENEW_GOLDEN=1 writes them again."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no program at all
    setup = tmp_path / "setup.sh"
    setup.write_text("module load cuda\nexport TFDS_DATA_DIR=/shared/data\n")
    arguments = (place, f"--manifest={manifest}", f"--setup={setup}", *PLACES[place], "--dry-run")
    assert run(monkeypatch, *arguments) == 0
    printed, golden = capsys.readouterr().out, GOLDEN / f"{place}.txt"
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text(printed)
    assert printed == golden.read_text()


@pytest.mark.parametrize("place", PLACES)
def test_the_shell_that_is_written_is_clean(place):
    text = (GOLDEN / f"{place}.txt").read_text()
    if place == "gke":
        (words,) = {json.loads(line) for line in re.findall(r'"(?:set -euo).*"', text)[:1]}
        scripts = [f"#!/usr/bin/env bash\n{words}\n"]
    else:
        scripts = re.findall(r"^(#!/usr/bin/env bash\n.*?)^(?:\$ |END$)", text, re.M | re.S)
    assert scripts
    # SC2016: what looks like a variable in single quotes is an argument that must stay as it is.
    checker = pathlib.Path(sys.executable).with_name("shellcheck")
    for script in scripts:
        done = subprocess.run(
            [checker, "--exclude=SC2016", "-"], input=script, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_without_jax_and_other_libraries(tmp_path):
    program = "import sys, scripts.launch.__main__; print(sorted(sys.modules))"
    arguments = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('.'); {program}"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("'(jax|numpy|absl|tensorflow)'", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=bucket/x", *TRAIN], "--output=bucket/x must be a folder of a bucket"),
        (["--output=gs://b", *TRAIN], "--output=gs://b must be"),
        (["--output=gs://bucket/a*", *TRAIN], "--output=gs://bucket/a* must be"),
        (["--name=a/b", *TRAIN], "run name 'a/b'"),
        (["--name=a$b", *TRAIN], "run name 'a$b'"),
        (["--name=launch", *TRAIN], "run name 'launch'"),
        (["--name=-x", *TRAIN], "run name '-x'"),
        ([], "needs the flags of `rkbench train` behind --"),
        (["--", "--config.seeds=0"], "has no --config="),
        ([*TRAIN, "--workdir=x"], "--workdir=x is the launcher's to set"),
        ([*TRAIN, "-flagfile", "x"], "-flagfile is a file of this machine"),
        (["--source=rkbench", *TRAIN], "--source=rkbench must be"),
        (["--source=git+https://me:secret@example.com/x", *TRAIN], "password or token"),
        (["--source=git+ssh://me:secret@example.com/x", *TRAIN], "password or token"),
        (["--source=https://secret@example.com/x.whl", *TRAIN], "password or token"),
        (["--source=/nowhere/x.whl", *TRAIN], "No such file"),
        (["--setup=/nowhere/x", *TRAIN], "--setup=/nowhere/x: No such file"),
        (["--source=https://example.com/x.whl?sig=secret", *TRAIN], "password or token"),
        (["--accelerator=v5litepod-16", *TRAIN], "--accelerator=v5litepod-16: several hosts need"),
        (["--accelerator=v5litepod-16", *TRAIN], "with --shared=DIR"),
        (["--shared=mnt", *TRAIN], "--shared=mnt must be an absolute path"),
        (["--shared=/mnt/../x", *TRAIN], "--shared=/mnt/../x must be an absolute path"),
        (["--upload-seconds=1000", *TRAIN], "--silent-seconds=1800 must be at least twice"),
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, message):
    good = ["--output=gs://bucket/x", "--name=run", "--source=installed", "--zone=z"]
    machine = ["--accelerator=a", "--runtime=r", "--dry-run"]
    assert run(monkeypatch, "tpu", *good, *machine, *arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("launch: error: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert "secret" not in output.err + output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hosts=2"], "--hosts=2: several hosts need one workdir that all see"),
        (["--hosts=2", "--shared=/mnt/shared"], "--shared=DIR and --volume=CLAIM"),
        (["--volume=claim"], "--shared=DIR and --volume=CLAIM"),
        (["--volume=A/b", "--shared=/mnt/shared"], "--volume=A/b must be the name"),
    ],
)
def test_hosts_of_gke_without_a_folder_in_common_are_refused(
    monkeypatch, capsys, arguments, message
):
    good = ["--output=gs://bucket/x", "--name=run", "--image=i", "--dry-run"]
    assert run(monkeypatch, "gke", *good, *arguments, *TRAIN) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith(f"launch: error: {message}")


@pytest.mark.parametrize(
    ("accelerator", "several"),
    [
        *(("v2-8", False), ("v3-32", True), ("v4-8", False), ("v5p-16", True)),
        *(("v5litepod-8", False), ("v5litepod-16", True), ("v6e-8", False), ("v6e-64", True)),
        ("future-1024", False),  # its machines will say
    ],
)
def test_which_accelerators_have_several_hosts_by_their_name(accelerator, several):
    assert has_several_hosts(accelerator) == several


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a manifest"),
        ('{"runs": []}', "has no runs"),
        ('{"runs": [{"name": "a"}]}', "is not a manifest (KeyError('arguments'))"),
        ('{"runs": [%s, %s]}' % (2 * ('{"name": "a", "arguments": ["--config=x"], "seeds": [], '
        '"grad_evals": 1, "hours": null}',)), "two runs of the name 'a'"),
        (None, "No such file"),
    ],
)  # fmt: skip
def test_a_bad_manifest_is_named(tmp_path, content, message):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.UserError, match=r"manifest\.json") as error:
        read_manifest(path)
    assert message in str(error.value)


@pytest.mark.parametrize("flag", ["--at-once=0", "--attempts=1.5", "--poll-seconds=nan"])
def test_bad_numbers_are_named(monkeypatch, capsys, flag):
    good = ["--output=gs://bucket/x", "--name=run", "--image=i", *TRAIN]
    assert run(monkeypatch, "gke", flag, *good) == 2
    name, value = flag.split("=")
    assert f"argument {name}: {value!r} must be" in capsys.readouterr().err


def test_only_selects_runs_and_names_the_nearest(manifest):
    assert [job.name for job in read_manifest(manifest, "rk4")] == ["digits-rk4"]
    with pytest.raises(errors.UserError, match="unknown run 'rk5'; nearest: digits-rk4"):
        read_manifest(manifest, "rk5")


def test_a_missing_program_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["slurm", f"--output={tmp_path}", "--name=run", *TRAIN]
    assert run(monkeypatch, *arguments) == 2
    assert "sbatch is not installed" in capsys.readouterr().err


def test_machine_names_are_valid_and_differ_by_output():
    names = ["mnist_mlp-rk4_dalr-full-learning_rate_0.002", "A, 'b'", "ü", "x" * 200]
    jobs = [Job(name, ("--config=x",)) for name in names]
    machines = [job.machine(output) for job in jobs for output in ("gs://a/b", "gs://a/c")]
    assert len(set(machines)) == len(machines)
    for name in machines:
        assert re.fullmatch("[a-z][a-z0-9-]{0,38}[a-z0-9]", name), name


@pytest.mark.parametrize(
    ("record", "finished"),
    [
        ({"status": "done", "seeds": [{"seed": 0}, {"seed": 1}]}, True),
        ({"status": "diverged", "seeds": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}, True),
        ({"status": "done", "seeds": [{"seed": 0}]}, False),
        ({"status": "running", "seeds": [{"seed": 0}, {"seed": 1}]}, False),
        ({"status": "done"}, False),
        (None, False),
        ([], False),
    ],
)
def test_finished_is_a_record_with_all_seeds(record, finished):
    assert Job("a", ("--config=x",), (0, 1)).is_finished(record) == finished


@pytest.fixture
def clone(tmp_path):
    """A git repository with the files of the package, as one commit."""
    folder = tmp_path / "clone"
    for name in ("pyproject.toml", "README.md", "LICENSE", "secret.txt", "rkbench/a.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} as committed")
    for name in ("configs", "workloads"):
        (folder / name).mkdir()
        (folder / name / "x.py").write_text("")
    (folder / "constraints.txt").write_text("jax==0.10.2\n")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "all")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    monkey = {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@example.com"}
    monkey |= {"GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@example.com"}
    return folder, monkey


def _content(found):
    (name,) = (name for name in found.files if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(found.files[name])) as archive:
        files = {file.name.split("/", 1)[1]: file for file in archive.getmembers() if file.isfile()}
        return {name: archive.extractfile(file).read().decode() for name, file in files.items()}


def test_a_clean_clone_is_sent_as_its_commit_without_other_files(clone):
    folder, _ = clone
    (folder / "notes.txt").write_text("not part of the package, and so no change of it")
    found = source.find("clone", clone=folder)
    assert re.fullmatch("[0-9a-f]{40}", found.commit)
    content = _content(found)
    assert content["rkbench/a.py"] == "rkbench/a.py as committed"
    assert not {"secret.txt", "notes.txt"} & content.keys()
    assert found.files["constraints.txt"] == b"jax==0.10.2\n"


def test_a_dirty_clone_is_refused_unless_allowed(clone, monkeypatch):
    folder, identity = clone
    (folder / "rkbench" / "a.py").write_text("changed")
    with pytest.raises(errors.UserError, match=r"not committed \(M rkbench/a.py\).*--allow-dirty"):
        source.find("clone", clone=folder)
    for name, value in identity.items():
        monkeypatch.setenv(name, value)
    found = source.find("clone", allow_dirty=True, clone=folder)
    assert found.commit.endswith("-dirty")
    assert _content(found)["rkbench/a.py"] == "changed"
    assert (folder / "rkbench" / "a.py").read_text() == "changed"  # and stays where it was


def test_a_wheel_and_a_commit_of_a_url(tmp_path):
    wheel = tmp_path / "rkbench-0.1-py3-none-any.whl"
    wheel.write_bytes(b"w")
    assert source.find(str(wheel)) == source.Source(wheel.name, {wheel.name: b"w"})
    assert source.find(NAMED.removeprefix("--source=")).commit == COMMIT
    assert source.find("git+ssh://git@example.com/x@main").commit == ""


def test_no_variable_of_the_environment_is_sent(monkeypatch, manifest, capsys):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    for place, flags in PLACES.items():
        assert run(monkeypatch, place, f"--manifest={manifest}", *flags, "--dry-run") == 0
    assert "hunter2" not in capsys.readouterr().out


def test_the_agent_is_for_older_pythons_too():
    import ast

    ast.parse(kit.AGENT.read_text(), feature_version=(3, 9))
    imported = re.findall(r"^import (\w+)", kit.AGENT.read_text(), re.M)
    assert imported
    assert set(imported) <= set(sys.stdlib_module_names)


def test_the_stand_ins_hide_the_real_programs(tmp_path):
    world = standins.World(tmp_path / "world").install()
    for name in standins.NAMES:
        found = subprocess.run(
            ["sh", "-c", f"command -v {name}"],
            env=os.environ | world.environment,
            capture_output=True,
            text=True,
        )
        assert found.stdout.strip() == str(world.bin / name)
