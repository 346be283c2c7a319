import json

import pytest

from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records.workdir import Workdir


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
