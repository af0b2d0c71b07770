"""Several bundles behind one server, which come, change and go."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle, digest, read, sign_bundle, write, write_plan
from presplit.bundle.golden import GOLDEN
from presplit.bundle.sign import make_keys, private_key_in
from presplit.core.errors import BundleError, EngineError
from presplit.core.plans import Plan
from presplit.core.private import NewFiles
from presplit.core.types import Runnable
from presplit.runtime.engines import ENGINES, Arrays, Stop
from presplit.runtime.hosted import Hosted, Layer, UnknownModel
from presplit.runtime.serving.catalogue import Catalogue, Change, key_of, names_of
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.golden import golden_logits, prove
from presplit.runtime.serving.server import hosting, serve
from presplit.runtime.trusted import reader

X = np.ones((1, 16), np.float32)


def copy(bundle: Bundle, path: Path) -> Path:
    """The bundle at ``path``, in place of what is there, as export does it."""
    beside = path.with_name(f".{path.name}.new")
    shutil.copytree(bundle.path, beside)
    shutil.rmtree(path, ignore_errors=True)
    beside.rename(path)
    return path


def kinds(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.path.name) for change in changes]


def ask(hosted: Hosted, bundle: Bundle) -> np.ndarray:
    name = bundle.manifest.model_name(0, "float32")
    return np.asarray(hosted.run(name, X, until=None).result())


def by(hosted: Hosted) -> Any:
    return lambda name, values: hosted.run(name, values, until=None).result()


def test_bundles_in_a_folder_come_change_and_go_and_a_broken_one_changes_nothing(
    bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    copy(bundle, tmp_path / "a.bundle")
    (tmp_path / "notes").mkdir()
    catalogue = Catalogue([tmp_path], hosting)
    assert kinds(catalogue.refresh()) == [("loaded", "a.bundle")]
    assert list(catalogue.bundles) == [key_of(bundle)]
    assert set(catalogue.names()) == set(names_of(bundle))
    for name in catalogue.names():
        assert catalogue.contract(name).name == name

    # Another version beside it: both are served, each under its own name.
    copy(other_bundle, tmp_path / "b.bundle")
    assert catalogue.refresh(settled=True) == []  # it may still be copied
    assert kinds(catalogue.refresh(settled=True)) == [("loaded", "b.bundle")]
    assert not np.array_equal(ask(catalogue, bundle), ask(catalogue, other_bundle))

    # A damaged one leaves what was read from there, until it is mended.
    damaged = tmp_path / "b.bundle" / "segment-00.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    [change] = catalogue.refresh()
    assert change.kind == "broken" and "goes on" in change.text and "segment-00" in change.text
    assert ask(catalogue, other_bundle).shape == (1, 4)
    assert list(catalogue.broken) == [tmp_path / "b.bundle"]
    copy(bundle, tmp_path / "b.bundle")
    assert kinds(catalogue.refresh()) == [("double", "b.bundle")]
    with pytest.raises(UnknownModel, match="hosted: small-"):
        ask(catalogue, other_bundle)

    # The same net twice: one goes, and the other still serves it.
    shutil.rmtree(tmp_path / "a.bundle")
    assert catalogue.refresh(settled=True) == []  # it may be exchanged
    assert kinds(catalogue.refresh(settled=True)) == [("gone", "a.bundle")]
    assert ask(catalogue, bundle).shape == (1, 4)
    assert not catalogue.broken
    catalogue.close()


def test_a_bundle_that_was_named_goes_on_when_its_folder_is_gone(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = copy(bundle, tmp_path / "a.bundle")
    catalogue = Catalogue([path], hosting)
    catalogue.refresh()
    shutil.rmtree(path)
    assert kinds(catalogue.refresh()) == [("kept", "a.bundle")]
    assert catalogue.refresh() == []
    assert ask(catalogue, bundle).shape == (1, 4)
    copy(bundle, path)
    assert kinds(catalogue.refresh()) == [("replaced", "a.bundle")]
    catalogue.close()


def test_a_new_plan_alone_is_a_new_bundle_of_the_same_models(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = copy(bundle, tmp_path / "a.bundle")
    catalogue = Catalogue([path], hosting)
    catalogue.refresh()
    write_plan(path, Plan(1))
    assert kinds(catalogue.refresh()) == [("replaced", "a.bundle")]
    assert catalogue.bundles[key_of(bundle)].plan == Plan(1)
    catalogue.close()


def test_what_is_replaced_is_let_go_of_after_its_last_request(
    bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    class Held(Layer):
        """What is inside, when it is let."""

        def __init__(self, inner: Hosted) -> None:
            super().__init__(inner)
            self.go, self.closed = threading.Event(), threading.Event()

        def run(self, name: str, array: Any, **words: Any) -> Future[Any]:
            done: Future[Any] = Future()

            def later() -> None:
                self.go.wait(5)
                done.set_result(self._inner.run(name, array, **words).result())

            threading.Thread(target=later).start()
            return done

        def close(self) -> None:
            self.closed.set()
            super().close()

    made = list[Held]()

    def make(found: Bundle) -> Hosted:
        made.append(Held(hosting(found)))
        return made[-1]

    path = copy(bundle, tmp_path / "a.bundle")
    catalogue = Catalogue([path], make)
    catalogue.refresh()
    name = bundle.manifest.model_name(0, "float32")
    asked = catalogue.run(name, X, until=None)
    copy(other_bundle, path)
    assert kinds(catalogue.refresh()) == [("replaced", "a.bundle")]
    time.sleep(0.02)
    assert not made[0].closed.is_set() and not asked.done()
    made[0].go.set()
    assert asked.result(5).shape == (1, 4)
    assert made[0].closed.wait(5)
    catalogue.close()


def test_a_signed_bundle_that_proves_bad_does_not_bar_the_way_back(
    bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    """The serial number is remembered once a bundle is good, and then no older one is taken."""
    with NewFiles(tmp_path) as new:
        make_keys(new)
    key = private_key_in(tmp_path / "signing.key")
    reads = reader([tmp_path / "signing.pub"], state=tmp_path / "bundles.json")
    bad = {other_bundle.manifest.model_hash}

    def make(found: Bundle) -> Hosted:
        if found.manifest.model_hash in bad:
            raise EngineError("its golden answer is wrong")
        return hosting(found)

    def look() -> str:
        """What comes of the bundle as a server finds it that starts now."""
        catalogue = Catalogue([tmp_path / "a.bundle"], make, reads=reads, taken=reads.taken)
        (change,) = catalogue.refresh()
        catalogue.close()
        return f"{change.kind}: {change.text}"

    sign_bundle(copy(bundle, tmp_path / "a.bundle"), key, serial=100)
    assert look().startswith("loaded")
    sign_bundle(copy(other_bundle, tmp_path / "a.bundle"), key, serial=200)
    assert "golden answer is wrong" in look()
    sign_bundle(copy(bundle, tmp_path / "a.bundle"), key, serial=100)
    assert look().startswith("loaded")
    bad.clear()
    sign_bundle(copy(other_bundle, tmp_path / "a.bundle"), key, serial=200)
    assert look().startswith("loaded")
    sign_bundle(copy(bundle, tmp_path / "a.bundle"), key, serial=100)
    assert "is older than what this device has taken (serial 100," in look()
    sign_bundle(tmp_path / "a.bundle", key, serial=200)
    assert look().startswith("loaded")


def test_a_bundle_whose_samples_the_server_does_not_take_is_told_and_not_served(
    bundle: Bundle, slow_bundle: Bundle, tmp_path: Path
) -> None:
    catalogue = Catalogue([tmp_path], hosting, most_bytes=1000)
    copy(bundle, tmp_path / "a.bundle")
    copy(slow_bundle, tmp_path / "b.bundle")  # a boundary of 4096 bytes
    changes = catalogue.refresh()
    assert kinds(changes) == [("loaded", "a.bundle"), ("broken", "b.bundle")]
    assert "one sample may have 4096 bytes" in changes[1].text and "--most-mb" in changes[1].text
    catalogue.close()


class Wrong:
    """ONNX Runtime, but the numbers at the end of each model are a tenth too large."""

    def __init__(self, model: Runnable, threads: int) -> None:
        self.inner = ENGINES["onnxruntime"](model, threads)

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        found = self.inner.run(inputs, stop=stop)
        return {key: value * np.float32(1.1) for key, value in found.items()}


def test_a_server_that_computes_something_else_is_not_ready(bundle: Bundle, tmp_path: Path) -> None:
    said = golden_logits(bundle)["float32"]
    for split in range(3):
        hosted = hosting(bundle)
        prove(by(hosted), bundle, ENGINES["onnxruntime"], split=split, form="float32")
        hosted.close()
    hosted = hosting(bundle, load=Wrong)
    with pytest.raises(EngineError, match=f"and {said[0, 0]:.4g}, .* is expected: the engine of"):
        prove(by(hosted), bundle, ENGINES["onnxruntime"], split=1, form="float32")
    hosted.close()

    # One that was written without them is asked twice.
    path = copy(bundle, tmp_path / "a.bundle")
    files = {name: (path / name).read_bytes() for name in bundle.manifest.files if name != GOLDEN}
    manifest = msgspec.structs.replace(bundle.manifest, files=digest(files))
    bare = write(path, manifest, files)
    assert golden_logits(bare) == {} and key_of(bare) == key_of(bundle)
    hosted = hosting(bare, load=Wrong)
    prove(by(hosted), bare, ENGINES["onnxruntime"], split=0, form="float32")
    hosted.close()
    with pytest.raises(EngineError, match=r"a.bundle: the tail from 0 .* of the golden input"):
        serve(copy(bundle, path), Config(port=0, log="none"), load=Wrong)


def test_an_empty_folder_holds_nothing_and_a_missing_bundle_is_named(tmp_path: Path) -> None:
    catalogue = Catalogue([tmp_path], hosting)
    assert catalogue.refresh() == [] and catalogue.most_bytes == 0
    with pytest.raises(BundleError, match="no such bundle"):
        read(tmp_path / "none.bundle")
