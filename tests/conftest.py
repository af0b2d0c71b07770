"""Laws draw the same cases every time and never fail for being slow; computing takes one thread."""

from __future__ import annotations

import contextlib
import functools
import os

# Before numpy and torch are loaded: their pools take this when they are made, and so do the
# processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "presplit",
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("presplit")

with contextlib.suppress(ImportError, AttributeError):
    # Each export compiles torch's whole table of ONNX functions anew, a third of a second in which
    # nothing differs; the tests export some hundred nets.
    from onnxscript._framework_apis import torch_2_5

    torch_2_5.get_torchlib_ops = functools.cache(torch_2_5.get_torchlib_ops)


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the command remembers of its user is neither read nor written."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
