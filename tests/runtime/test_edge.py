"""The edge with a server that works gives the net's own answers.

It says which exit answers, where and why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle, write_plan
from presplit.core.errors import BundleError, InputError, PlanError, SpecError
from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.runtime.engines import ENGINES
from presplit.runtime.hosted import Hosted
from presplit.runtime.serving.server import hosting
from presplit.runtime.upstream import InProcess

IMAGES = np.random.default_rng(0).random((40, 16), dtype=np.float32)
CODEC_ERROR = {"float32": 0.0, "float16": 0.02, "int8": 1.5}
"""What a codec may change in this net's logits, which are in about -30..30."""


def whole(bundle: Bundle) -> np.ndarray:
    """The logits of the whole net."""
    return logits(bundle, 3, "final")


def logits(bundle: Bundle, stop: int, exit_name: str) -> np.ndarray:
    """The logits of an exit for all images."""
    net = bundle.runnable(0, stop, exits=[exit_name] if exit_name != "final" else [])
    return ENGINES["onnxruntime"](net, 1).run({net.input: IMAGES})[net.logits[exit_name]]


@pytest.fixture(scope="module")
def hosted(bundle: Bundle) -> Iterator[Hosted]:
    found = hosting(bundle)
    yield found
    found.close()


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_the_servers_answer_is_the_whole_nets(
    bundle: Bundle, server: str, hosted: Hosted, codec: str
) -> None:
    """Over gRPC and within the process, from every split."""
    expected = whole(bundle)
    for split in (0, 1, 2):
        plan = Plan(split, codec=codec, deadline_s=5.0)
        with (
            Edge.open(bundle, server=server, plan=plan) as remote,
            Edge.open(bundle, upstream=InProcess(hosted), plan=plan) as near,
        ):
            for image, right in zip(IMAGES[:3], expected, strict=False):
                answer, same = remote.answer(image), near.answer(image)
                assert (answer.why, answer.where, answer.exit, answer.degraded) == (
                    "server",
                    "server",
                    "final",
                    False,
                )
                np.testing.assert_allclose(answer.scores, right, atol=CODEC_ERROR[codec] + 1e-5)
                np.testing.assert_array_equal(same.scores, answer.scores)
                sent = bundle.encoding(split, codec).nbytes(bundle.net.boundaries[split])
                assert (answer.up_bytes, same.up_bytes) == (sent, sent)


def test_the_last_split_answers_everything_here(bundle: Bundle) -> None:
    with Edge.open(bundle, plan=Plan(3)) as edge:
        answers = [edge.answer(image) for image in IMAGES]
    assert {(a.why, a.where, a.exit, a.up_bytes, a.degraded) for a in answers} == {
        ("planned", "edge", "final", 0, False)
    }
    np.testing.assert_allclose([a.scores for a in answers], whole(bundle), rtol=1e-5)


def test_an_exit_answers_when_it_is_sure_and_the_server_otherwise(
    bundle: Bundle, server: str
) -> None:
    plan = Plan(2, thresholds={"early": 0.9, "middle": 0.99}, deadline_s=5.0)
    with Edge.open(bundle, server=server, plan=plan) as edge:
        answers = [edge.answer(image) for image in IMAGES]
    early = logits(bundle, 1, "early")
    shares = np.exp(early - early.max(1, keepdims=True))
    sure = 1 / shares.sum(1) >= 0.9
    assert [a.exit == "early" for a in answers] == sure.tolist()
    assert {(a.exit, a.why) for a in answers} == {
        ("early", "confident"),
        ("middle", "confident"),
        ("final", "server"),
    }


def test_an_exit_without_a_threshold_never_answers_early(bundle: Bundle) -> None:
    with Edge.open(bundle, plan=Plan(3, thresholds={"middle": 0.0})) as edge:
        assert {edge.answer(image).exit for image in IMAGES} == {"middle"}


def test_the_bundles_own_plan_is_used(bundle: Bundle, tmp_path) -> None:
    import shutil

    from presplit.bundle import read

    path = shutil.copytree(bundle.path, tmp_path / "planned.bundle")
    write_plan(read(path), Plan(3))
    with Edge.open(path) as edge:
        assert edge.answer(IMAGES[0]).why == "planned"


def test_scores_cannot_be_written_to(bundle: Bundle) -> None:
    with Edge.open(bundle, plan=Plan(3)) as edge, pytest.raises(ValueError, match="read-only"):
        edge.answer(IMAGES[0]).scores[0] = 1


def test_threads_share_one_edge(bundle: Bundle, server: str) -> None:
    expected = whole(bundle)
    wrong: list[str] = []

    def ask(edge: Edge, offset: int) -> None:
        for number in [(offset + step) % len(IMAGES) for step in range(10)]:
            answer = edge.answer(IMAGES[number])
            if answer.why != "server" or not np.allclose(
                answer.scores, expected[number], atol=1e-4
            ):
                wrong.append(f"{number}: {answer}")

    with Edge.open(bundle, server=server, plan=Plan(1, deadline_s=5.0)) as edge:
        threads = [threading.Thread(target=ask, args=(edge, 7 * number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_deadline_that_is_too_near_to_ask_is_met_by_the_held_answer(
    bundle: Bundle, server: str
) -> None:
    with Edge.open(bundle, server=server, plan=Plan(1)) as edge:
        answer = edge.answer(IMAGES[0], deadline_s=0.000001)
    assert (answer.why, answer.where, answer.exit, answer.up_bytes) == (
        "no_time",
        "edge",
        "early",
        0,
    )
    assert answer.degraded


def test_closing_while_another_thread_waits_loses_no_answer(bundle: Bundle, server: str) -> None:
    edge = Edge.open(bundle, server=server, plan=Plan(1, deadline_s=5.0))
    answers = []

    def ask() -> None:
        for image in np.tile(IMAGES, (10, 1)):
            try:
                answers.append(edge.answer(image))
            except InputError as error:
                answers.append(str(error))
                return

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.03)
    edge.close()
    thread.join()
    assert answers[-1] == "the edge is closed; open it again to get answers"
    assert {answer.why for answer in answers[:-1]} <= {"server", "link_down"}


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (IMAGES[0].astype(np.float64), r"got float64 of shape \(16,\)"),
        ((IMAGES[0] * 255).astype(np.uint8), r"got uint8 of shape \(16,\)"),
        (IMAGES[:1], r"got float32 of shape \(1, 16\)"),
        (IMAGES[0][:15], r"got float32 of shape \(15,\)"),
        (IMAGES[0].tolist(), "got list"),
        (np.full(16, np.nan, np.float32), "got NaN or infinity"),
        (np.full(16, np.inf, np.float32), "got NaN or infinity"),
    ],
)
def test_an_array_that_is_not_one_sample_is_refused(
    bundle: Bundle, image: np.ndarray, got: str
) -> None:
    with Edge.open(bundle, plan=Plan(3)) as edge:
        with pytest.raises(InputError, match=rf"one float32 sample of shape \(16,\).*{got}"):
            edge.answer(image)
        assert edge.answer(IMAGES[0]).why == "planned"


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, 1e10, float("nan"), float("inf"), "soon"])
def test_a_deadline_that_is_none_is_refused(bundle: Bundle, deadline_s: Any) -> None:
    with (
        Edge.open(bundle, plan=Plan(3)) as edge,
        pytest.raises(InputError, match="deadline_s must be a positive"),
    ):
        edge.answer(IMAGES[0], deadline_s=deadline_s)


def test_a_closed_edge_refuses(bundle: Bundle) -> None:
    with Edge.open(bundle, plan=Plan(3)) as edge:
        pass
    with pytest.raises(InputError, match="closed"):
        edge.answer(IMAGES[0])


def test_what_cannot_be_opened_says_why(bundle: Bundle, tmp_path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Edge.open(tmp_path / "none.bundle")
    with pytest.raises(PlanError, match="carries no plan"):
        Edge.open(bundle)
    with pytest.raises(PlanError, match=r"does not fit .*split must be in 0\.\.3, got 4"):
        Edge.open(bundle, plan=Plan(4))
    with pytest.raises(PlanError, match="no exit 'middle' at or before split 1"):
        Edge.open(bundle, plan=Plan(1, thresholds={"middle": 0.5}))
    with pytest.raises(PlanError, match="no codec named 'int9'"):
        Edge.open(bundle, plan=Plan(1, codec="int9"))
    with pytest.raises(SpecError, match="server must be HOST:PORT"):
        Edge.open(bundle, server="http://example.com", plan=Plan(1))


@pytest.mark.parametrize("kind", [float, np.float32, np.float16, np.float64])
def test_a_deadline_of_any_number_type_means_the_same(bundle: Bundle, kind: type) -> None:
    with Edge.open(bundle, plan=Plan(3, {"early": 2.0})) as edge:
        answer = edge.answer(IMAGES[0], deadline_s=kind(5))
    assert (answer.why, answer.degraded) == ("planned", False)
