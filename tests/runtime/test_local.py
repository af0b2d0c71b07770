"""The whole net here, in batches, gives the net's own answers.

Samples that are sure leave, and the others go on.
"""

from __future__ import annotations

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import InputError, PlanError
from presplit.core.plans import Plan
from presplit.core.types import Runnable
from presplit.runtime import Edge, Local
from presplit.runtime.engines import ENGINES, Arrays, Engine, Stop

IMAGES = np.random.default_rng(0).random((40, 16), dtype=np.float32)
BOTH = Plan(3, thresholds={"early": 0.9, "middle": 0.99})


@pytest.mark.parametrize("batch", [1, 7, 40, 64])
def test_every_sample_gets_the_answer_that_it_gets_alone(bundle: Bundle, batch: int) -> None:
    with Edge.open(bundle, plan=BOTH) as edge:
        alone = [edge.answer(image) for image in IMAGES]
    found = Local.open(bundle, plan=BOTH).answer(IMAGES, batch=batch)
    names = [bundle.net.exits[place].name for place in found.exit_numbers]
    assert names == [answer.exit for answer in alone]
    assert set(names) == {"early", "middle", "final"}
    assert found.labels.tolist() == [answer.label for answer in alone]
    np.testing.assert_allclose(
        found.scores, [answer.scores for answer in alone], rtol=1e-5, atol=1e-5
    )


def test_only_those_without_an_answer_go_on(bundle: Bundle) -> None:
    sizes: list[int] = []

    class Counting:
        """ONNX Runtime, with the sizes of its batches written down."""

        def __init__(self, model: Runnable, threads: int) -> None:
            self.inner: Engine = ENGINES["onnxruntime"](model, threads)

        def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
            sizes.extend(len(array) for array in inputs.values())
            return self.inner.run(inputs, stop=stop)

    local = Local(bundle, BOTH, load=Counting)
    sizes.clear()
    exits = local.answer(IMAGES).exit_numbers
    assert sizes == [40, int((exits > 0).sum()), int((exits > 1).sum())]


def test_a_boundary_is_not_copied_where_nobody_leaves(bundle: Bundle) -> None:
    fed: list[object] = []
    made: list[object] = []

    class Keeping:
        """ONNX Runtime; what goes in and what comes out is kept."""

        def __init__(self, model: Runnable, threads: int) -> None:
            self.inner: Engine = ENGINES["onnxruntime"](model, threads)

        def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
            fed.extend(inputs.values())
            found = self.inner.run(inputs, stop=stop)
            made.extend(found.values())
            return found

    local = Local(bundle, Plan(3, thresholds={"early": 1.1, "middle": 1.1}), load=Keeping)
    fed.clear()
    assert set(local.answer(IMAGES[:5]).exit_numbers.tolist()) == {2}
    assert len(fed) == 3
    assert all(any(array is each for each in made) for array in fed[1:])


def test_a_batch_that_is_answered_whole_ends_there(bundle: Bundle) -> None:
    found = Local.open(bundle, plan=Plan(1, thresholds={"early": 0.0})).answer(IMAGES)
    assert set(found.exit_numbers.tolist()) == {0}


def test_without_thresholds_the_last_exit_answers_everything(bundle: Bundle) -> None:
    found = Local.open(bundle).answer(IMAGES)
    net = bundle.runnable(0, 3)
    whole = ENGINES["onnxruntime"](net, 1).run({net.input: IMAGES})[net.logits["final"]]
    assert set(found.exit_numbers.tolist()) == {2}
    np.testing.assert_allclose(found.scores, whole, rtol=1e-5, atol=1e-5)


def test_no_samples_have_no_answers(bundle: Bundle) -> None:
    found = Local.open(bundle, plan=BOTH).answer(IMAGES[:0])
    assert (found.labels.shape, found.scores.shape, found.exit_numbers.shape) == (
        (0,),
        (0, 4),
        (0,),
    )


@pytest.mark.parametrize(
    ("images", "batch", "message"),
    [
        (
            IMAGES.astype(np.float64),
            8,
            r"float32 samples of shape \(n, 16\), got float64 of shape \(40, 16\)",
        ),
        (IMAGES[0], 8, r"\(n, 16\), got float32 of shape \(16,\)"),
        ([[0.0] * 16], 8, r"\(n, 16\), got list"),
        (np.full((1, 16), np.nan, np.float32), 8, "finite values, got NaN or infinity"),
        (IMAGES, 8.5, "whole number from 1 on, got 8.5"),
        (IMAGES, 0, "whole number from 1 on, got 0"),
    ],
)
def test_what_it_does_not_take_is_named(
    bundle: Bundle, images: np.ndarray, batch: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Local.open(bundle).answer(images, batch=batch)


def test_a_plan_of_another_net_is_refused(bundle: Bundle) -> None:
    with pytest.raises(PlanError, match="no exit 'late'"):
        Local.open(bundle, plan=Plan(3, thresholds={"late": 0.5}))
