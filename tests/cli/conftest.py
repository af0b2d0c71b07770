"""A small trained run and its bundle, made once by the command itself, and the command to call."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from presplit.cli.main import main

Said = tuple[int, str, str]


def presplit(*arguments: object) -> Said:
    """Exit code, standard output and standard error of the command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def command() -> Callable[..., Said]:
    return presplit


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specs") / "small.toml"
    path.write_text("""
        name = "small"
        [model]
        width = 8
        [sparsity]
        density = 0.5
        [exits]
        after = ["block1"]
        [training]
        epochs = 3
    """)
    return path


@pytest.fixture(scope="session")
def run(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    code, _, problem = presplit("train", spec, "--out", path)
    assert code == 0, problem
    return path


@pytest.fixture(scope="session")
def bundle(run: Path) -> Path:
    code, _, problem = presplit("export", run)
    assert code == 0, problem
    return run / "small.bundle"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images as bytes, of the size that the net takes."""
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8))
    return path
