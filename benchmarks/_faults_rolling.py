"""Promises of change: heads and tails of other bundles, and bundles replaced under load."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter as Count
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np

from benchmarks._faults import Callers, Row, Rows, Server, golden, good_request, running, serving
from benchmarks._faults_nets import small_bundle
from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.runtime.wire import messages


def skewed(quick: bool) -> Iterator[Row]:
    """Promise 10."""
    with TemporaryDirectory() as place:
        old = small_bundle(Path(place) / "old.bundle", seed=1)
        new = small_bundle(Path(place) / "new.bundle", seed=2)
        yield _skew(old, new, 100 if quick else 1_000)
        yield from _rolled(old, new, 500 if quick else 10_000)


def _skew(head: Bundle, tail: Bundle, count: int) -> Row:
    """An edge of one bundle and a server of another."""
    image = np.zeros(head.net.boundaries[0].shape, np.float32)
    whys: Count[tuple[str, str]] = Count()
    with (
        serving(bundle=tail) as server,
        Edge.open(head, server=server.address, plan=Plan(1, deadline_s=1.0)) as edge,
    ):
        for _ in range(count):
            answer = edge.answer(image)
            whys[answer.where, answer.why] += 1
        harm = server.harm()
    said = ", ".join(f"{n} {where}: {why}" for (where, why), n in whys.items())
    asked = "the head of one bundle and the tail of another: refused, answered by the edge"
    ok = not harm and all(where == "edge" for where, _ in whys) and whys["edge", "refused"] > 0
    return Row(10, asked, f"{said}; {harm}" if harm else said, count, ok)


class _Users:
    """Callers of one bundle's tail, each of whose answers must be that bundle's own."""

    def __init__(self, server: Server, bundle: Bundle, count: int) -> None:
        self._server, self._count = server, count
        model = bundle.manifest.model_name(1, "float32")
        self._raw, self._golden = good_request(model).SerializeToString(), golden(bundle)
        self.statuses: Count[str] = Count()
        self.mixed = 0
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._go) for _ in range(4)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Let them end once each has asked often enough."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _go(self) -> None:
        infer = self._server.channel.unary_unary(messages.path("ModelInfer"))
        expected = np.frombuffer(self._golden, np.float32)
        asked = 0
        while asked < self._count // len(self._threads) or not self._ended.is_set():
            asked += 1
            try:
                reply = messages.ModelInferResponse.FromString(infer(self._raw, timeout=10))
            except grpc.RpcError as error:
                self.statuses[error.code().name] += 1
                time.sleep(0.005)
                continue
            self.statuses["OK"] += 1
            logits = np.frombuffer(reply.raw_output_contents[0], np.float32)
            self.mixed += not np.allclose(logits, expected, rtol=1e-4, atol=1e-5)


def _rolled(old: Bundle, new: Bundle, count: int) -> Iterator[Row]:
    """A new bundle comes beside the old one, takes over, and the old one goes."""
    with TemporaryDirectory() as place:
        folder = Path(place) / "served"
        folder.mkdir()
        shutil.copytree(old.path, folder / "old.bundle")
        with running("presplit", "serve", str(folder), "--watch", "0.2s", bundle=old) as server:
            users = [_Users(server, old, count), _Users(server, new, count)]
            for user in users:
                user.start()
            shutil.copytree(new.path, Path(place) / "new.bundle")
            (Path(place) / "new.bundle").rename(folder / "new.bundle")
            came = _until(server, new, there=True)
            time.sleep(0.3)
            (folder / "old.bundle").rename(Path(place) / "gone.bundle")
            gone = _until(server, old, there=False)
            time.sleep(0.3)
            for user in users:
                user.join()
            statuses = users[0].statuses + users[1].statuses
    mixed = sum(user.mixed for user in users)
    told = f"{mixed} of {statuses['OK']} answers; statuses {dict(statuses)}"
    ok = mixed == 0 and came and gone and set(statuses) <= {"OK", "NOT_FOUND"}
    asked = "a bundle replaced by another under load: no answer of the one for the other"
    yield Row(10, asked, told, sum(statuses.values()), ok and statuses["OK"] > 0)


def _until(server: Server, bundle: Bundle, *, there: bool, within_s: float = 15.0) -> bool:
    """Whether a bundle's tail comes, or goes, in time."""
    raw = good_request(bundle.manifest.model_name(1, "float32"))
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            server.call("ModelInfer", raw)
            found = True
        except grpc.RpcError:
            found = False
        if found == there:
            return True
        time.sleep(0.05)
    return False


def reloaded(quick: bool) -> Iterator[Row]:
    """Promise 22, its second half: a server that looks for bundles again while it is used."""
    times = 5 if quick else 50
    with TemporaryDirectory() as place:
        folder = Path(place) / "served"
        folder.mkdir()
        kept = small_bundle(folder / "kept.bundle", seed=1)
        other = small_bundle(Path(place) / "other.bundle", seed=2)
        with running("presplit", "serve", str(folder), "--watch", "0", bundle=kept) as server:
            with Callers(server, 8) as callers:
                for number in range(times):
                    path = folder / "other.bundle"
                    if number % 2:
                        shutil.rmtree(path)
                    else:
                        shutil.copytree(other.path, path)
                    server.process.send_signal(signal.SIGHUP)
                    _until(server, other, there=number % 2 == 0)
            statuses = Count(call.status for call in callers.calls)
            harm = server.harm()
    said = f"{dict(statuses)}; {harm}" if harm else str(dict(statuses))
    asked = f"{times} reloads under load: whoever asks for what stays is answered"
    yield Row(22, asked, said, sum(statuses.values()), set(statuses) == {"OK"} and not harm)


PARTS: dict[int, Rows] = {10: skewed, 22: reloaded}
