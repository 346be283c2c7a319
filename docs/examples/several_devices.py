"""Runge-Kutta steps over several devices: the mean over devices is taken inside grad_fn."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

from rkbench import optimizers

images, labels = load_digits(return_X_y=True)
images, labels = (images[:1792] / 16).astype("float32"), labels[:1792]  # 8 devices divide 1792
optimizer = optimizers.create("rk4", 0.1, momentum=0.9)


def device_step(params, state, batch):  # on each device with its part of the batch
    def mean_loss(params):  # its gradient is the mean over devices, at every stage
        logits = batch[0] @ params["w"] + params["b"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return jax.lax.pmean(losses.mean(), "devices")

    value, gradient = jax.value_and_grad(mean_loss)(params)
    updates, state = optimizer.update(gradient, state, params, grad_fn=jax.grad(mean_loss))
    return optax.apply_updates(params, updates), state, value


def train(steps=200):
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), (jax.sharding.AxisType.Auto,))
    specs = (P(), P(), P("devices"))
    step = jax.jit(jax.shard_map(device_step, mesh=mesh, in_specs=specs, out_specs=P()))
    params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    state, losses = optimizer.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state, (images, labels))
        losses.append(value)
    return losses


if __name__ == "__main__":
    print(train()[-1])
