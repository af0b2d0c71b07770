"""The engine: what goes in comes out as ONNX Runtime computes it.

What is wrong gives one clear error, and no noise.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import BundleError, InputError
from presplit.runtime.engines.onnxruntime import Engine

ONES = np.ones((1, 16), np.float32)


def test_outputs_come_by_name(bundle: Bundle) -> None:
    found = Engine(bundle.segment(0, 2, exits=["early"])).run({"boundary": ONES})
    assert {name: array.shape for name, array in found.items()} == {
        "boundary_02": (1, 8),
        "logits.early": (1, 4),
    }


@pytest.mark.parametrize("split", [0, 1, 2])
def test_head_and_tail_together_are_the_whole_net(bundle: Bundle, split: int) -> None:
    whole = Engine(bundle.segment(0, 3)).run({"boundary": ONES})["logits"]
    values = (
        Engine(bundle.segment(0, split)).run({"boundary": ONES})[f"boundary_{split:02d}"]
        if split
        else ONES
    )
    np.testing.assert_array_equal(
        Engine(bundle.segment(split, 3)).run({"boundary": values})["logits"], whole
    )


@pytest.mark.parametrize("model", [b"", b"not a model", bytes(1000)])
def test_bytes_that_are_no_model_are_refused(model: bytes) -> None:
    with pytest.raises(BundleError, match="does not take the model"):
        Engine(model)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_model_cut_short_is_refused(bundle: Bundle, share: float) -> None:
    model = bundle.segment(0, 3)
    with pytest.raises(BundleError, match="does not take the model"):
        Engine(model[: int(share * len(model))])


@pytest.mark.parametrize(
    "inputs",
    [
        {"boundary": np.ones((1, 15), np.float32)},
        {"boundary": np.ones((1, 16), np.float64)},
        {"boundary": np.ones(16, np.float32)},
        {"other": ONES},
        {},
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused(
    bundle: Bundle, inputs: dict[str, np.ndarray]
) -> None:
    with pytest.raises(InputError, match="the model does not take"):
        Engine(bundle.segment(0, 3)).run(inputs)


def test_refusals_print_nothing(bundle: Bundle) -> None:
    program = """if True:
        import numpy as np
        from presplit.bundle import read
        from presplit.core.errors import PresplitError
        from presplit.runtime.engines.onnxruntime import Engine
        model = read(SOURCE).segment(0, 3)
        for wrong in (b"junk", model[:500], model.replace(b"Gemm", b"Gemn")):
            try:
                Engine(wrong)
            except PresplitError:
                pass
            else:
                raise SystemExit("not refused")
        try:
            Engine(model).run({"boundary": np.ones((1, 3), np.float32)})
        except PresplitError:
            pass
    """.replace("SOURCE", repr(str(bundle.path)))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_onnxruntime_one_sentence_says_what_to_install(bundle: Bundle) -> None:
    program = """if True:
        import sys
        sys.modules["onnxruntime"] = None
        from presplit.core.errors import MissingLibrary
        from presplit.runtime.engines.onnxruntime import Engine
        try:
            Engine(b"")
        except MissingLibrary as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "running a bundle needs onnxruntime: pip install 'presplit[edge]'\n"
