"""What a step costs on more devices, as far as two cores can tell: no times but compilation.

Devices are simulated on the CPU, where a step's speed would say nothing. What devices send each
other, what memory a device needs and how many operations an example takes is in the compiled
program. `python -m rkbench.bench.devices SEED DATA FSDP VARIANT` looks at one, in its own process.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from rkbench.bench.row import Row

BATCH = 64  # examples a device
DEVICES = (1, 2, 4, 8)
GRADIENTS = {"adam": 1, "rk4": 4, "rk4_dalr": 5}  # DALR: and a Hessian-vector product


def devices() -> Iterator[Row]:
    """The MLP 3x500 with a batch that grows with the devices; and its state in pieces."""
    base: dict[str, float] = {}
    for variant, gradients in GRADIENTS.items():
        for count in DEVICES:
            found = _child((1, count, 1), variant)
            base = base if count > 1 else found
            yield Row(
                f"mnist_mlp, {variant}, {BATCH} examples on each of {count} devices",
                f"{found['reduced']:.4f} parameter bytes all-reduced in {found['operations']:.0f} "
                "operations a step",
                f"{gradients if count > 1 else 0}",
                f"of one device's: FLOPs an example {found['flops'] / base['flops']:.3f}, temporary"
                f" memory a device {found['temporary'] / base['temporary']:.3f}; compiled in "
                f"{found['compile']:.1f} s",
            )
    whole, cut = (_child(mesh, "rk4_momentum") for mesh in ((1, 4, 1), (1, 1, 4)))
    yield Row(
        "mnist_mlp, rk4_momentum, state of a device with fsdp=4 over data=4",
        f"{cut['state'] / whole['state']:.3f}",
        "0.25",
        f"{cut['gathered']:.2f} parameter bytes gathered a step, {cut['reduced']:.2f} all-reduced",
    )


def _child(mesh: tuple[int, int, int], variant: str) -> dict[str, float]:
    count = mesh[0] * mesh[1] * mesh[2]
    flag = f"--xla_force_host_platform_device_count={count}"
    environment = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # compilation is measured
    command = [sys.executable, "-m", "rkbench.bench.devices", *map(str, mesh), variant]
    return json.loads(subprocess.check_output(command, text=True, env=environment))


def measure(mesh: tuple[int, int, int], variant: str) -> dict[str, float]:
    """One step of the MLP on a mesh, from its compiled program."""
    from rkbench.configs import mnist_mlp
    from rkbench.step.collectives import Moved, moved
    from rkbench.trainer.experiment import Experiment

    config: Any = mnist_mlp.get_config(variant)
    config.update({"batch_size": BATCH * mesh[1] * mesh[2], "compiled_loops": "off"})
    config.mesh.update(dict(zip(("seed", "data", "fsdp"), mesh, strict=True)))
    program = Experiment.with_synthetic_data(config, 1_024).program
    state = program.init((0,))
    begin = time.perf_counter()
    compiled = program.compile(state, (0,))
    compilation = time.perf_counter() - begin
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    leaves = jax.tree.leaves(state)
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    collectives, none = moved(compiled.as_text() or ""), Moved(0, 0)
    return {
        "reduced": collectives.get("all-reduce", none).bytes / parameters,
        "gathered": collectives.get("all-gather", none).bytes / parameters,
        "operations": sum(kind.operations for kind in collectives.values()),
        "flops": cost["flops"] / BATCH,
        "temporary": memory.temp_size_in_bytes,
        "state": sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves),
        "compile": compilation,
    }


if __name__ == "__main__":
    SEED, DATA, FSDP = map(int, sys.argv[1:4])
    print(json.dumps(measure((SEED, DATA, FSDP), sys.argv[4])))
