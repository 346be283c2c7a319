import json

import pytest

from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records import run_record
from rkbench.records.run_record import Workdir


@pytest.fixture
def config():
    return digits_mlp.get_config("rk4").lock()


def written(folder, config):
    workdir = Workdir(folder, config)
    workdir.write(status="running")
    workdir.close()
    return folder / "run.json"


def test_a_record_from_before_a_field_existed_is_taken_up_with_the_default(tmp_path, config):
    path = written(tmp_path, config)
    record = json.loads(path.read_text())
    del record["config"]["label_smoothing"]
    del record["config"]["schedule"]["end_factor"]
    path.write_text(json.dumps(record))
    Workdir(tmp_path, config).close()
    with config.unlocked():
        config.label_smoothing = 0.1
    with pytest.raises(UserError, match=r"label_smoothing: 0\.0 -> 0\.1$"):
        Workdir(tmp_path, config)


def test_the_hash_names_what_decides_a_seeds_numbers(config):
    def hashed(**changes):
        changed = config.copy_and_resolve_references()
        with changed.unlocked():
            changed.update(changes)
        return run_record.config_hash(run_record.plain_config(changed))

    assert hashed(seeds=(3, 4)) == hashed(data_dir="elsewhere") == hashed()
    assert hashed(total_steps=7) != hashed()


def test_one_setting_is_one_whether_a_record_writes_it_whole_or_real():
    config = run_record.plain_config(digits_mlp.get_config("adamw"))
    whole = {**config, "optimizer": {**config["optimizer"], "eps": 1}}
    real = {**config, "optimizer": {**config["optimizer"], "eps": 1.0}}
    texts = [run_record.canonical(run_record.comparable({"config": c})) for c in (whole, real)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": 3}', "null"])
def test_a_file_that_is_no_record_is_refused_and_kept(tmp_path, config, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is not a run record"):
        Workdir(tmp_path, config)
    assert path.read_text() == content


def test_the_lock_is_free_after_a_refusal(tmp_path, config):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError):
        Workdir(tmp_path, config)
    (tmp_path / "run.json").unlink()
    Workdir(tmp_path, config).close()


def test_differences_name_fields_at_every_depth():
    one = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
    other = {"a": 1, "b": {"c": 2, "d": 4}, "f": 0}
    assert run_record.differences(one, other) == ["b.d: 3 -> 4", "e: [1] -> None", "f: None -> 0"]


@pytest.mark.parametrize(
    ("told", "known"),
    [("", (None, None)), ("1a2b3c", ("1a2b3c", False)), ("1a2b3c-dirty", ("1a2b3c", True))],
)
def test_outside_git_the_commit_is_what_the_environment_says(monkeypatch, tmp_path, told, known):
    package = tmp_path / "site-packages" / "rkbench"
    package.mkdir(parents=True)
    monkeypatch.setattr(run_record.rkbench, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("RKBENCH_COMMIT", told)
    assert run_record.source_commit() == known


def test_a_process_continues_the_latest_part_or_begins_one():
    parts = []

    def begun(command, started):
        return run_record.continued(parts, {"command": [command], "started": started, "other": 1})

    begun("a", "1")
    begun("a", "1")  # the same process
    begun("a", "2")
    begun("b", "3")
    assert begun("a", "4") is parts[-1]
    assert parts == [
        {"command": ["a"], "started": "1", "resumed": ["2"]},
        {"command": ["b"], "started": "3"},
        {"command": ["a"], "started": "4"},
    ]
