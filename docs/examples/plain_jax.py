"""Runge-Kutta steps in a plain JAX loop: handwritten digits, two layers, RK4 with momentum."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from rkbench import optimizers

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
optimizer = optimizers.create("rk4", 0.1, momentum=0.9)


def loss(params, batch):
    hidden = jnp.tanh(batch[0] @ params["w1"] + params["b1"])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["w2"], batch[1]).mean()


@jax.jit
def step(params, state, batch):
    grad_fn = jax.grad(lambda params: loss(params, batch))  # the same batch at every stage
    value, gradient = jax.value_and_grad(loss)(params, batch)
    updates, state = optimizer.update(gradient, state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state, value


def train(steps=200, batch_size=128):
    w1, w2 = 0.2 * jax.random.normal(jax.random.key(0), (2, 64, 32))
    params = {"w1": w1, "b1": jnp.zeros(32), "w2": w2[:32, :10]}
    state, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(1), steps):
        chosen = jax.random.choice(key, len(images), (batch_size,))
        params, state, value = step(params, state, (images[chosen], labels[chosen]))
        losses.append(value)
    return losses


if __name__ == "__main__":
    print(train()[-1])
