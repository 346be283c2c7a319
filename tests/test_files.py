"""Files written in one step: nothing is written through a link, nothing half-written stays."""

import contextlib
import errno
import fcntl
import os
import resource
import subprocess
import sys
import textwrap

import pytest

from rkbench import files
from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records import metrics, workdir

LINE = '{"step": %d, "seed": 0, "wall_time": 0.5, "grad_evals": 4, "batch/loss": 0.125}\n'


def plant(folder, names):
    """A link under each name, to a file that must not change."""
    victim = folder.parent / "victim"
    victim.write_text("mine")
    for name in names:
        (folder / name).symlink_to(victim)
    return victim


def test_a_file_is_replaced_whole_and_has_the_usual_permissions(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "old")
    with files.replacing(path) as file:
        file.write("new é".encode())
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "new é"
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "plain"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(TypeError), files.replacing(path) as file:
        file.write("half")  # pyright: ignore
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [files.write_json, metrics.keep_only])
def test_no_link_under_the_name_of_a_temporary_file_is_written_through(tmp_path, write):
    (tmp_path / "run").mkdir()
    victim = plant(tmp_path / "run", ("run.tmp", "metrics.tmp", "run.json"))
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(f"{LINE % 1}?\n{LINE % 2}")
    if write is metrics.keep_only:
        write(log, lambda record: True)
        assert [line["step"] for line in metrics.read(log)] == [1, 2]
    else:
        write(tmp_path / "run" / "run.json", {})
        assert (tmp_path / "run" / "run.json").read_text() == "{}\n"
    assert victim.read_text() == "mine"


def test_a_name_that_is_guessed_is_not_taken(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "00")
    (tmp_path / "folder" / ".rkbench-00.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.write_text(tmp_path / "folder" / "file", "new")
    assert victim.read_text() == "mine"


def test_a_log_that_is_a_link_is_neither_appended_to_nor_cut(tmp_path):
    (tmp_path / "run").mkdir()
    victim = plant(tmp_path / "run", ("metrics.jsonl",))
    path = tmp_path / "run" / "metrics.jsonl"
    for write in (files.appending, lambda path: files.truncate(path, 0)):
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            write(path)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["run.json", "metrics.jsonl", ".lock", "checkpoints", "tensorboard"]
)
def test_a_workdir_that_leads_elsewhere_is_refused(tmp_path, name):
    (tmp_path / "run").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("{}") if "." in name else victim.mkdir()
    (tmp_path / "run" / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"{name} is in the way: it must be a .*, not a link"):
        workdir.Workdir(tmp_path / "run", digits_mlp.get_config())


def test_only_a_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match=f"{name} is in the way"):
            files.write_text(tmp_path / name, "x")


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    program = f"""
        import os, pathlib
        from rkbench import files
        with files.replacing(pathlib.Path({str(tmp_path / "a")!r})) as file:
            file.write(b"half")
            os._exit(1)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)]).returncode == 1
    (left,) = tmp_path.iterdir()
    with files.replacing(tmp_path / "b") as file:
        assert not left.exists()
        files.write_text(tmp_path / "c", "c")
        file.write(b"b")
    assert (tmp_path / "b").read_bytes() == b"b"


def test_a_file_that_was_taken_for_an_abandoned_one_is_made_again(tmp_path, monkeypatch):
    """Another process finds it between its making and its locking."""
    flock, meddled = fcntl.flock, []

    def meddle(file, operation):
        if not meddled:
            meddled.append(operation)
            files.remove_abandoned(tmp_path)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", meddle)
    files.write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"
    assert meddled


@contextlib.contextmanager
def full_disk():
    """No file can grow over 64 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_log_is_cut_back_on_a_full_disk(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [LINE % step for step in range(100)]
    path.write_text("".join(lines) + '{"step": ')
    with full_disk():
        metrics.keep_only(path, lambda line: line["step"] < 50)
    assert path.read_text() == "".join(lines[:50])
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), full_disk():
        metrics.keep_only(path, lambda line: line["step"] != 7)
    assert path.read_text() == "".join(lines[:50])
    assert list(tmp_path.iterdir()) == [path]


def test_cutting_a_log_takes_no_memory_for_its_lines(tmp_path):
    import tracemalloc

    path = tmp_path / "metrics.jsonl"
    path.write_text(LINE % 1 * 20_000)
    tracemalloc.start()
    metrics.keep_only(path, lambda record: True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000
