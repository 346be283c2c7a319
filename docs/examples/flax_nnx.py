"""Runge-Kutta steps with flax nnx: parameters apart from all else, which stands still in a step."""

import jax
import optax
from flax import nnx
from sklearn.datasets import load_digits

from rkbench import optimizers

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")


@nnx.jit
def step(model, optimizer, batch):
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        logits = nnx.merge(graph, params, rest)(batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    optimizer.update(model, gradient, grad_fn=jax.grad(loss))
    return value


def train(steps=200, batch_size=128):
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(64, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 10, rngs=rngs))
    optimizer = nnx.Optimizer(model, optimizers.create("rk4", 0.1, momentum=0.9), wrt=nnx.Param)
    losses = []
    for key in jax.random.split(jax.random.key(1), steps):
        chosen = jax.random.choice(key, len(images), (batch_size,))
        losses.append(step(model, optimizer, (images[chosen], labels[chosen])))
    return losses


if __name__ == "__main__":
    print(train()[-1])
