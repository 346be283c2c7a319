"""One rule for every path: ~, buckets, no home; and which commands and variables follow it."""

import os
import pathlib

import pytest

from rkbench import paths
from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.step import compilation
from rkbench.train import train_and_evaluate
from rkbench.workloads import array_cache


@pytest.fixture
def no_home(monkeypatch):
    """Neither HOME nor an entry of the user in the list of users."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_123)


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_tilde_is_the_home_folder(home):
    assert paths.local("~/run") == home / "run"
    assert paths.local("~") == home
    assert paths.local("a/~") == pathlib.Path("a/~")


@pytest.mark.parametrize("url", ["gs://b/run", "s3://b", "hdfs://host/x", pathlib.Path("gs://b/x")])
def test_a_bucket_is_refused_with_the_remedy(url):
    with pytest.raises(UserError, match=r"scripts\.launch"):
        paths.local(url)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_can_be_no_path(path):
    with pytest.raises(UserError):
        paths.local(path)


def test_the_trainer_refuses_a_bucket_and_makes_no_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs://b/run"):
        train_and_evaluate(digits_mlp.get_config().lock(), "gs://b/run")
    assert not list(tmp_path.iterdir())


def test_without_a_home_a_tilde_is_refused(no_home):
    with pytest.raises(UserError, match="no home folder"):
        paths.local("~/run")


def test_cache_folder(monkeypatch, home):
    monkeypatch.setenv("RKBENCH_CACHE_DIR", "~/mine")
    assert paths.cache_folder() == home / "mine"
    monkeypatch.delenv("RKBENCH_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert paths.cache_folder() == pathlib.Path("/xdg/rkbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache_folder() == home / ".cache" / "rkbench"


def test_compiled_programs_and_datasets_are_kept_in_one_folder(monkeypatch, home):
    settings = {}
    monkeypatch.setenv("RKBENCH_CACHE_DIR", "~/mine")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(compilation.jax.config, "update", settings.__setitem__)
    compilation.enable_cache()
    assert settings["jax_compilation_cache_dir"] == str(home / "mine" / "compiled")
    array_cache.cached("key", dict)
    assert list((home / "mine").glob("key-*.npz"))


def test_without_a_home_nothing_is_cached(monkeypatch, tmp_path, no_home):
    settings = {}
    monkeypatch.chdir(tmp_path)
    for name in ("RKBENCH_CACHE_DIR", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compilation.jax.config, "update", settings.__setitem__)
    compilation.enable_cache()
    assert "jax_compilation_cache_dir" not in settings
    assert array_cache.cached("key", dict) == {}
    assert not list(tmp_path.iterdir())


def test_data_folder(monkeypatch, home):
    monkeypatch.setenv("TFDS_DATA_DIR", "~/data")
    assert paths.data_folder(None) == home / "data"
    assert paths.data_folder("~/other") == home / "other"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert paths.data_folder(None) == home / "tensorflow_datasets"
    with pytest.raises(UserError, match="gs://b"):
        paths.data_folder("gs://b")
