import pytest

from rkbench.configs import digits_mlp
from rkbench.records import identity


@pytest.fixture
def config():
    return digits_mlp.get_config("rk4").lock()


def test_the_hash_names_what_decides_a_seeds_numbers(config):
    def hashed(**changes):
        changed = config.copy_and_resolve_references()
        with changed.unlocked():
            changed.update(changes)
        return identity.config_hash(identity.plain_config(changed))

    assert hashed(seeds=(3, 4)) == hashed(data_dir="elsewhere") == hashed()
    assert hashed(total_steps=7) != hashed()


def test_one_setting_is_one_whether_a_record_writes_it_whole_or_real():
    config = identity.plain_config(digits_mlp.get_config("adamw"))
    whole = {**config, "optimizer": {**config["optimizer"], "eps": 1}}
    real = {**config, "optimizer": {**config["optimizer"], "eps": 1.0}}
    texts = [identity.canonical(identity.comparable({"config": c})) for c in (whole, real)]
    assert texts[0] == texts[1]


def test_differences_name_fields_at_every_depth():
    one = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
    other = {"a": 1, "b": {"c": 2, "d": 4}, "f": 0}
    assert identity.differences(one, other) == ["b.d: 3 -> 4", "e: [1] -> None", "f: None -> 0"]
