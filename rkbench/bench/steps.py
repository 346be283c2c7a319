"""Training steps: the trainer over a bare loop, a Runge-Kutta step over SGD steps, loops over none.

On MNIST-shaped random images, since the speed of a step does not depend on what the pictures show.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rkbench import train
from rkbench.bench.row import Row, ratio, seconds
from rkbench.configs import mnist_cnn, mnist_mlp
from rkbench.trainer.experiment import Experiment
from rkbench.workloads.batches import batch_indices

EXAMPLES = 10_000
METHODS = (
    *("momentum", "adam", "heun", "rk4"),
    *("rk4_modified_adagrad", "rk4_dalr", "rk4_momentum"),
)  # whose cost `methods` shows beyond that of their gradients


def _experiment(config, examples: int = EXAMPLES) -> Experiment:
    return Experiment.with_synthetic_data(config, examples)


def _mlp(variant: str, batch_size: int, **changes):
    config = mnist_mlp.get_config(variant)
    config.update(
        {"batch_size": batch_size, "input_scaling": "unit", "tensorboard": False} | changes
    )
    return config.lock()


@dataclasses.dataclass
class _Steps:
    """`steps` steps of an experiment's compiled program, from where the last call ended."""

    experiment: Experiment
    steps: int

    def __post_init__(self):
        self.state = self.experiment.program.init((0,))

    def __call__(self) -> None:
        self.state, metrics = self.experiment.program.advance(self.state, (0,), 0, self.steps)
        jax.block_until_ready((self.state, metrics))


def trainer() -> Iterator[Row]:
    """The trainer's own loop, with batches, logs and progress, over a bare `jit(lax.scan)`."""
    steps = 2_000
    config = _mlp("adam", 16, total_steps=steps, eval_every_steps=0, checkpoint_every_steps=0)
    experiment = _experiment(config)
    bare = _bare_loop(experiment, steps)
    spent = []
    with tempfile.TemporaryDirectory() as folder:

        def train_once() -> None:
            workdir = pathlib.Path(folder) / str(len(spent))
            record = train.train_experiment(experiment, workdir)
            spent.append(record["seconds"])

        bare()
        train_once()
        ratios = []
        for _ in range(7):
            train_once()
            ratios.append(seconds(bare) / spent[-1])
    ratios.sort()
    yield Row(
        "trainer's steps/s over a bare jit(lax.scan) loop, MLP 3x500, batch 16, Adam",
        f"{ratios[3]:.3f} [{ratios[0]:.3f} to {ratios[-1]:.3f}]",
        ">= 0.95",
        f"{steps / spent[-1]:.0f} steps/s; the trainer also logs every 10 steps",
    )


def _bare_loop(experiment: Experiment, steps: int) -> Callable[[], None]:
    """What somebody would write by hand for one seed: data on the device, one scan, Adam."""
    model, optimizer = experiment.workload.model, optax.adam(1e-3)
    data = jax.tree.map(jnp.asarray, experiment.workload.train)
    indices = jnp.asarray(batch_indices(0, 0, steps, experiment.programs.batch_size, EXAMPLES))

    def loss(params, images, labels):
        logits = model.apply({"params": params}, images.astype(jnp.float32) / 255, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry, index, data):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(
            params, data["image"][index], data["label"][index]
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def loop(carry, indices, data):
        return jax.lax.scan(functools.partial(step, data=data), carry, indices)

    params, _ = experiment.workload.init(jax.random.key(0))
    carry = params, optimizer.init(params)
    return lambda: jax.block_until_ready(loop(carry, indices, data))


def stages() -> Iterator[Row]:
    """One RK4 step over four SGD steps: calls of equal length, short, so that drift cancels."""
    for batch_size, steps, target in ((16, 50, 1.2), (128, 12, 1.05), (1024, 3, 1.05)):
        rk4 = _Steps(_experiment(_mlp("rk4", batch_size)), steps)
        sgd = _Steps(_experiment(_mlp("sgd", batch_size)), 4 * steps)
        result = ratio(rk4, sgd, pairs=31)
        yield Row(
            f"one RK4 step over 4 SGD steps, MLP 3x500, batch {batch_size}",
            str(result),
            f"<= {target}",
            f"{1e3 * result.numerator / steps:.2f} ms an RK4 step",
        )


def methods() -> Iterator[Row]:
    """A step of each method over the SGD steps of the same gradient evaluations, batch 128."""
    budget = 48  # gradient evaluations a call: whole steps of 1, 2, 3, 4 and 6
    sgd = _Steps(_experiment(_mlp("sgd", 128)), budget)
    for name in METHODS:
        experiment = _experiment(_mlp(name, 128))
        state = experiment.program.init((0,))
        _, metrics = experiment.program.advance(state, (0,), 0, 1)
        gradients = int(metrics.grad_evals.max())
        result = ratio(_Steps(experiment, budget // gradients), sgd, pairs=15)
        yield Row(
            f"a step of {name} over SGD steps of as many gradients, {gradients}, batch 128",
            str(result),
            note=f"{1e3 * result.numerator / budget:.2f} ms a gradient evaluation",
        )


def chunks() -> Iterator[Row]:
    """The full batch of MNIST in chunks over the full batch at once: time and memory."""
    examples, steps = 60_000, []
    for chunk in (1_000, 0):
        config = _mlp("sgd", examples, physical_batch_size=chunk)
        steps.append(_Steps(_experiment(config, examples), 1))
    result = ratio(*steps, pairs=5)
    chunked, whole = (
        step.experiment.program.compile(step.state, (0,)).memory_analysis().temp_size_in_bytes
        for step in steps
    )
    yield Row(
        "full batch of 60,000 in chunks of 1,000 over the whole at once, MLP 3x500, SGD",
        str(result),
        "<= 1.1",
        f"{result.numerator:.2f} s a step; temporary memory {chunked / 1e6:.0f} and "
        f"{whole / 1e6:.0f} MB",
    )


def compilation() -> Iterator[Row]:
    """Compile time and temporary memory of the RK4 step over the SGD step's."""
    programs = {}

    def compile_once(variant: str) -> None:
        program = _experiment(_mlp(variant, 16)).program
        state = jax.eval_shape(lambda: program.init((0,)))
        programs[variant] = program.lower(state, (0,)).compile()

    jax.config.update("jax_enable_compilation_cache", False)  # the one on disk
    result = ratio(
        functools.partial(compile_once, "rk4"), functools.partial(compile_once, "sgd"), pairs=11
    )
    yield Row(
        "time to trace and compile the RK4 step over SGD's",
        str(result),
        "<= 1.5",
        f"{result.numerator:.2f} s and {result.denominator:.2f} s",
    )
    params = _experiment(_mlp("sgd", 16)).program.init((0,)).params
    copy = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    rk4, sgd = (programs[v].memory_analysis().temp_size_in_bytes for v in ("rk4", "sgd"))
    yield Row(
        "temporary memory of the RK4 step over SGD's plus 3 parameter copies",
        f"{rk4 / (sgd + 3 * copy):.2f}",
        "<= 1.1",
        f"{rk4 / 1e6:.1f} MB, {sgd / 1e6:.1f} MB, a copy is {copy / 1e6:.1f} MB",
    )


def convolution() -> Iterator[Row]:
    """Compiled loops against single steps for both forms of convolution: is the rule right?"""
    for form in ("xla", "matmul"):
        programs = {}
        for loops in ("on", "off"):
            config: Any = mnist_cnn.get_config("rk4")
            config.model.convolution = form
            config.update({"compiled_loops": loops, "tensorboard": False})
            programs[loops] = _Steps(_experiment(config.lock()), 3)
        result = ratio(programs["on"], programs["off"], pairs=5)
        config = mnist_cnn.get_config("rk4")
        config.model.convolution = form
        chosen = "loop" if _experiment(config.lock()).programs.loop else "single steps"
        better = "loop" if result.median < 1 else "single steps"
        yield Row(
            f"CNN, batch 64, RK4, {form} convolution: compiled loop over single steps",
            str(result),
            "the rule takes the faster",
            f"{1e3 * result.numerator / 3:.0f} and {1e3 * result.denominator / 3:.0f} ms a step; "
            f"the rule takes {chosen}, faster is {better}",
        )
