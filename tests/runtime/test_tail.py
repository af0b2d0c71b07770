"""The tails behind a server: one engine for a split, a bound on what is kept, places and order."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.errors import BundleError, EngineError, InputError
from presplit.core.types import Runnable
from presplit.runtime.engines import ENGINES, Engine
from presplit.runtime.hosted import Hosted, Overloaded, TooLate, UnknownModel
from presplit.runtime.serving.batching import Crew, batched
from presplit.runtime.serving.server import hosting
from presplit.runtime.serving.tail import Step, Tails

VALUES = np.random.default_rng(0).random((3, 12), dtype=np.float32)


@pytest.fixture
def hosted(bundle: Bundle) -> Iterator[Hosted]:
    found = hosting(bundle)
    yield found
    found.close()


class Loader:
    """ONNX Runtime, with the models that were loaded written down."""

    def __init__(self) -> None:
        self.loaded: list[Runnable] = []

    def __call__(self, model: Runnable, threads: int) -> Engine:
        self.loaded.append(model)
        return ENGINES["onnxruntime"](model, threads)


def splits(tails: Tails) -> tuple[int, ...]:
    """Where the engines that are kept start."""
    return tuple(step.start for step in tails.kept.keys)


def test_however_many_codecs_are_named_a_split_has_one_engine(bundle: Bundle) -> None:
    load = Loader()
    tails = Tails(bundle, load=load)
    for split in (0, 1, 2):
        for codec in bundle.manifest.ports[split].entry:
            tails.warm(bundle.manifest.model_name(split, codec))
    assert splits(tails) == (0, 1, 2)
    assert len(load.loaded) == 3
    assert tails.kept.nbytes == sum(len(model.onnx) for model in load.loaded)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_decoding_in_front_gives_what_the_portable_tail_gives(bundle: Bundle, codec: str) -> None:
    encoding = bundle.encoding(1, codec)
    codes = CODECS[codec].encode(VALUES, encoding)
    portable = bundle.runnable(1, 3, codec=codec)
    expected = ENGINES["onnxruntime"](portable, 1).run({portable.input: codes})
    found = Tails(bundle).run(bundle.manifest.model_name(1, codec), codes, until=None)
    np.testing.assert_allclose(found, expected[portable.logits["final"]], rtol=1e-5, atol=1e-5)


def test_beyond_the_bound_the_least_lately_used_engine_goes(bundle: Bundle) -> None:
    load = Loader()
    sizes = [len(bundle.runnable(split, 3).onnx) for split in (0, 1, 2)]
    tails = Tails(bundle, keep_bytes=sizes[0] + sizes[1], load=load)
    names = [bundle.manifest.model_name(split, "float32") for split in (0, 1, 2)]
    for split in (0, 1, 0, 2):
        tails.warm(names[split])
        assert tails.kept.nbytes <= sizes[0] + sizes[1]
    assert splits(tails) == (0, 2)
    tails.warm(names[1])  # what went comes back
    assert (splits(tails), len(load.loaded)) == ((1, 2), 4)


def test_an_engine_that_runs_is_not_let_go(bundle: Bundle) -> None:
    tails = Tails(bundle, keep_bytes=0)
    with tails.kept.engine(Step(0, 3, "final", "float32")):
        tails.warm(bundle.manifest.model_name(1, "float32"))
        assert splits(tails) == (0,)
    assert (splits(tails), tails.kept.nbytes) == ((), 0)


def test_an_engine_that_cannot_be_made_leaves_no_trace(bundle: Bundle) -> None:
    def broken(model: Runnable, threads: int) -> Engine:
        raise EngineError("no memory")

    tails = Tails(bundle, load=broken)
    for _ in range(2):
        with pytest.raises(EngineError):
            tails.warm(bundle.manifest.model_name(0, "float32"))
        assert (splits(tails), tails.kept.nbytes) == ((), 0)


def test_more_than_it_admits_is_shed_at_once_and_the_rest_is_right(bundle: Bundle) -> None:
    hosted = batched(Tails(bundle), Crew(1, places=16), closes=True)
    name = bundle.manifest.model_name(1, "float32")
    served, shed = [], 0
    for _ in range(160):
        try:
            served.append(hosted.run(name, VALUES, until=None))
        except Overloaded:
            shed += 1
    answers = [future.result() for future in served]
    again = hosted.run(name, VALUES, until=None).result()  # places come back
    hosted.close()
    assert shed
    assert len(served) >= 16
    assert all(np.array_equal(answer, again) for answer in answers)


def test_what_is_too_late_or_wrong_takes_no_place_for_long(bundle: Bundle, hosted: Hosted) -> None:
    name = bundle.manifest.model_name(1, "float32")
    for _ in range(100):
        with pytest.raises(TooLate):
            hosted.run(name, VALUES, until=time.monotonic() - 0.001).result()
        with pytest.raises(InputError, match=r"must have shape \(1..64, 12\)"):
            hosted.run(name, VALUES[:, :5], until=None).result()
        with pytest.raises(InputError, match="must be finite"):
            hosted.run(name, np.full_like(VALUES, np.nan), until=None).result()
        with pytest.raises(UnknownModel, match="no model 'none' here; hosted: small-"):
            hosted.warm("none")
    assert hosted.run(name, VALUES, until=None).result().shape == (3, 4)


def test_a_contract_tells_form_and_largest_request(bundle: Bundle, hosted: Hosted) -> None:
    contract = hosted.contract(bundle.manifest.model_name(2, "int8"))
    assert (contract.input.dtype, contract.input.shape, contract.input.max_batch) == (
        "int8",
        (8,),
        64,
    )
    assert contract.output.shape == (4,)
    assert hosted.most_bytes == 64 * 16 * 4


def test_a_model_that_is_none_is_the_servers_own_fault(bundle: Bundle) -> None:
    def refusing(model: Runnable, threads: int) -> Engine:
        return ENGINES["onnxruntime"](Runnable(b"junk", "boundary", None, {}), threads)

    with pytest.raises(BundleError, match="does not take the model"):
        Tails(bundle, load=refusing).warm(bundle.manifest.model_name(0, "float32"))
