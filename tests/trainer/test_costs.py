"""What a workload costs: XLA's count against a count by hand, and the table in the docs."""

import pathlib

import pytest

from rkbench.configs import cifar10_wrn, mnist_cnn, mnist_mlp
from rkbench.errors import UserError
from rkbench.trainer import costs

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "workloads.md"


def test_the_gradient_of_a_multilayer_perceptron_counts_its_matrix_products():
    layers = [784 * 500, 500 * 500, 500 * 500, 500 * 10]
    # Forward, gradient of the weights, gradient of the inputs (not of the images).
    by_hand = 2 * (3 * sum(layers) - layers[0])
    cost = costs.of_workload(mnist_mlp.get_config())
    assert cost.parameters == 898_510
    assert cost.flops == pytest.approx(by_hand, rel=0.03)


def test_a_convolution_counts_what_lies_inside_the_image():
    taps = (28 * 3 - 2) ** 2  # of a 3x3 kernel over 28x28 pixels, without the padding
    first, second, head = taps * 20, taps * 20 * 10, 28 * 28 * 10 * 10
    by_hand = 2 * (2 * first + 3 * second + 3 * head)
    assert costs.of_workload(mnist_cnn.get_config()).flops == pytest.approx(by_hand, rel=0.03)


@pytest.mark.parametrize(("variant", "evals"), [("momentum", 1), ("rk4", 4), ("rk4_dalr", 6)])
def test_a_step_costs_its_gradients_times_its_batch(variant, evals):
    step = costs.of_step(cifar10_wrn.get_config(variant), costs.Cost(1, 10.0))
    batch = 128 if variant == "momentum" else 512
    assert step == (variant, batch, evals, evals * batch * 10.0, 117_187)


@pytest.mark.standard_promotion  # optax's optimizers are counted as well
def test_the_table_in_the_docs_is_what_the_command_prints():
    document = DOCUMENT.read_text(encoding="utf-8")
    assert costs.with_table(document, costs.table()) == document


def test_a_document_without_the_marks_is_refused():
    with pytest.raises(UserError, match="no <!-- rkbench costs -->"):
        costs.with_table("nothing here", "table")
