"""What experiments share: each program is compiled once, and data lies on the devices once."""

import pytest

from rkbench.configs import digits_mlp, imagenet_vit
from rkbench.trainer.experiment import Experiment, side_by_side


def config(optimizer="sgd", **changes):
    result = digits_mlp.get_config(optimizer)
    result.model.hidden_sizes = ()  # less to trace and to compile
    result.update({"total_steps": 4, "tensorboard": False} | changes)
    return result.lock()


def compile_(experiment):
    seeds = experiment.seed_groups[0]
    experiment.program.compile(experiment.program.init(seeds), seeds)


def test_a_program_serves_experiments_that_were_made_before_it_was_compiled():
    first = Experiment.from_config(config())
    second = Experiment.from_config(config("sgd,learning_rate=0.5"), like=first)
    for one in (first, second):
        compile_(one)
    assert second.programs is first.programs
    assert first.programs.compilations == first.program.compilations == 1
    assert first.scalars["learning_rate"][0] != second.scalars["learning_rate"][0]


def test_each_size_of_group_has_one_program_and_all_have_the_same_data():
    alone = Experiment.from_config(config(seeds=(0, 1)))
    for seeds in ((0, 1), (2, 3), (4,)):
        compile_(alone.of_group(seeds))
    assert alone.programs.compilations == 2
    assert alone.of_group((0, 1)).splits["train"] is alone.splits["train"]


def test_further_experiments_side_by_side_take_the_program_of_the_first_ones():
    rates = ("sgd,learning_rate=0.1", "sgd,learning_rate=0.2", "sgd,learning_rate=0.3")
    first = Experiment.from_config(config(rates[0]))
    one, two = (Experiment.from_config(config(rate), like=first) for rate in rates[1:])
    for pair in ((first, one), (two, first)):
        compile_(side_by_side(pair))
    assert first.programs.compilations == 1


def test_unlike_experiments_cannot_train_side_by_side():
    first = Experiment.from_config(config())
    for other in (config("rk4"), config(total_steps=5)):
        with pytest.raises(ValueError, match="cannot train side by side"):
            side_by_side((first, Experiment.from_config(other, like=first)))


@pytest.mark.standard_promotion
def test_an_experiment_on_synthetic_data_needs_no_dataset_and_leaves_the_config_alone():
    given = imagenet_vit.get_config("adam")
    given.update({"batch_size": 2, "physical_batch_size": 0})
    before = given.to_json()
    made = Experiment.with_synthetic_data(given, 3)
    assert given.augment.rand_augment_layers > 0
    assert given.to_json() == before
    assert not made.programs.streamed
    assert made.workload.provenance["train_examples"] == 3
