import pytest

import rkbench
from rkbench.records import provenance


@pytest.mark.parametrize(
    ("told", "known"),
    [("", (None, None)), ("1a2b3c", ("1a2b3c", False)), ("1a2b3c-dirty", ("1a2b3c", True))],
)
def test_outside_git_the_commit_is_what_the_environment_says(monkeypatch, tmp_path, told, known):
    package = tmp_path / "site-packages" / "rkbench"
    package.mkdir(parents=True)
    monkeypatch.setattr(rkbench, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("RKBENCH_COMMIT", told)
    assert provenance.source_commit() == known


def test_a_process_continues_the_latest_part_or_begins_one():
    parts = []

    def begun(command, started):
        return provenance.continued(parts, {"command": [command], "started": started, "other": 1})

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
