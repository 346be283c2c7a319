"""What every test shares: strict numerics, caches of the session's own, and the real datasets."""

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

# Before the first import of JAX. The tests compare bits, which only the CPU promises.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of their time is LLVM's: they compile much and compute little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest
import standins

from scripts.launch import agent

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure(config):
    # One cache a session, which the workers of pytest-xdist and the processes that tests start
    # inherit: a dataset is prepared once, and nothing of the user's is read or written.
    if not hasattr(config, "workerinput"):
        config.rkbench_cache = tempfile.mkdtemp(prefix="rkbench-tests-")
        os.environ["RKBENCH_CACHE_DIR"] = config.rkbench_cache
    # Programs compiled once serve every test and process that needs the same one again.
    compiled = str(pathlib.Path(os.environ["RKBENCH_CACHE_DIR"]) / "compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(config.rkbench_cache, ignore_errors=True)


# Files with long tests begin first: no process is left with one of them at the end.
_LONG = ("trainer/test_distributed.py", "trainer/", "workloads/", "docs/", "paper/")


def pytest_collection_modifyitems(items):
    def place(item):
        path = os.path.relpath(item.path, _ROOT / "tests")
        return next((i for i, part in enumerate(_LONG) if path.startswith(part)), len(_LONG))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def strict_numerics(request):
    """No implicit broadcasting between ranks and no implicit promotion between dtypes.

    The marker `standard_promotion` lifts the second: the bias correction of optax's Adam and its
    like promotes an int32 count, which strict promotion refuses.
    """
    standard = request.node.get_closest_marker("standard_promotion")
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("standard" if standard else "strict"),
    ):
        yield


@pytest.fixture
def x64():
    """Float64 inside the test, for measured orders of convergence and closed forms."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tfds_dir() -> str:
    """The folder with the real MNIST and Fashion-MNIST; a test that needs it skips without."""
    folder = pathlib.Path(
        os.environ.get("TFDS_DATA_DIR") or _ROOT.parent / "shared" / "tensorflow_datasets"
    )
    missing = [name for name in ("mnist", "fashion_mnist") if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"no {' or '.join(missing)} prepared by TFDS in {folder} (set TFDS_DATA_DIR)")
    return str(folder)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Stand-ins for the clouds' and clusters' commands, first on the PATH."""
    world = standins.World(tmp_path / "world").install()
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


@pytest.fixture
def without_processes(world, monkeypatch):
    """gcloud and installers are called without processes, and the run is one."""

    def run(arguments, input=b"", cwd=".", **_):
        words = [os.path.basename(arguments[0]), *arguments[1:]]
        if words[0] not in standins.NAMES:
            with open(world.folder / "calls.jsonl", "a") as file:
                file.write(json.dumps(words) + "\n")
            return subprocess.CompletedProcess(arguments, 0, b"", b"")
        code, output, error = world.call(words, input.decode(), cwd)
        return subprocess.CompletedProcess(arguments, code, (output + error).encode(), None)

    monkeypatch.setattr(agent.subprocess, "run", run)
    monkeypatch.setattr(agent.time, "sleep", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    yield world
    signal.signal(signal.SIGTERM, before)


def _with_eight_devices():
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"


@pytest.fixture(scope="session")
def devices():
    """Calls a function in a process with eight devices."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, context, initializer=_with_eight_devices
    ) as pool:

        def call(function, *arguments):
            return pool.submit(function, *arguments).result()

        yield call
