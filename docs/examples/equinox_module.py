"""Runge-Kutta steps with equinox: the arrays of a module are the parameters."""

import equinox as eqx
import jax
import optax
from sklearn.datasets import load_digits

from rkbench import optimizers

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
optimizer = optimizers.create("rk4", 0.1, momentum=0.9)


@eqx.filter_jit
def step(model, state, batch):
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params):
        logits = jax.vmap(eqx.combine(params, static))(batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state, params, grad_fn=jax.grad(loss))
    return eqx.apply_updates(model, updates), state, value


def train(steps=200, batch_size=128):
    model = eqx.nn.MLP(64, 10, width_size=32, depth=1, key=jax.random.key(0))
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    losses = []
    for key in jax.random.split(jax.random.key(1), steps):
        chosen = jax.random.choice(key, len(images), (batch_size,))
        model, state, value = step(model, state, (images[chosen], labels[chosen]))
        losses.append(value)
    return losses


if __name__ == "__main__":
    print(train()[-1])
