"""Runge-Kutta steps with flax linen and a TrainState: dropout, and digits in mini-batches."""

import flax.linen as nn
import jax
import optax
from sklearn.datasets import load_digits

from rkbench import optimizers

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
network = nn.Sequential([nn.Dense(32), nn.relu, nn.Dropout(0.1, deterministic=False), nn.Dense(10)])


@jax.jit
def step(state, batch, key):
    def loss(params):  # one batch and one dropout key for all stages of the step
        logits = state.apply_fn({"params": params}, batch[0], rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    value, gradient = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradient, grad_fn=jax.grad(loss)), value


def train(steps=200, batch_size=128):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    params = network.init(keys, images[:1])["params"]
    optimizer = optimizers.create("heun", 0.1, momentum=0.9)
    # flax's own TrainState would not pass grad_fn on.
    state = optimizers.TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
    losses = []
    for key in jax.random.split(jax.random.key(1), steps):
        chosen = jax.random.choice(key, len(images), (batch_size,))
        state, value = step(state, (images[chosen], labels[chosen]), key)
        losses.append(value)
    return losses


if __name__ == "__main__":
    print(train()[-1])
