"""Promises of the wire: malformed requests, random bytes, what is too large."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter as Count
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks._faults import Row, Rows, Server, good_client, good_request, serving
from benchmarks._faults_h2 import beginning, framed, headers
from benchmarks._faults_malformed import Case, cases
from benchmarks._faults_nets import BOUNDARY
from presplit.runtime.wire import messages

TOLD_BYTES = 1000
"""A refusal is short."""
SECRETS = ("Traceback", ".py", "/tmp", "File ", "presplit.")
"""What no reply may hold."""
EXHAUSTED = "RESOURCE_EXHAUSTED"


def malformed(quick: bool) -> Iterator[Row]:
    """Promise 1."""
    with serving() as server:
        before = server.counters()
        found = cases(server.bundle)
        wrong = [text for case in found if (text := _refused(server, case))]
        wrong += [text] if (text := server.left(before, within_s=5)) else []
        asked = "named cases get the exact status in few words, and the server answers as before"
        yield Row(1, asked, "; ".join(wrong) or "all", len(found), not wrong)
        yield _generated(server, 2_000 if quick else 100_000)


def _refused(server: Server, case: Case) -> str:
    """What is wrong with how a case ends; nothing, if all is as it must be."""
    try:
        server.call("ModelInfer", case.raw)
        status, text = "OK", ""
    except grpc.RpcError as error:
        status, text = error.code().name, error.details() or ""
    if status != case.status:
        return f"{case.name}: {status}"
    if len(text) > TOLD_BYTES or any(word in text for word in SECRETS):
        return f"{case.name}: told {text[:200]!r}"
    harm = server.harm()
    return f"{case.name}: {harm}" if harm else ""


def _generated(server: Server, count: int) -> Row:
    """Requests of all kinds of fields: what is legal is answered, all else is refused."""
    seen: Count[str] = Count()
    wrong: list[str] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(server.model))
    def ask(request: Any) -> None:
        expected = _legal(request, server.model)
        try:
            server.call("ModelInfer", request)
            status = "OK"
        except grpc.RpcError as error:
            status = error.code().name
        seen[status] += 1
        if (status == "OK") != expected or status not in ("OK", "INVALID_ARGUMENT", "NOT_FOUND"):
            wrong.append(f"{status} for {str(request)[:100]!r}")

    ask()
    harm = server.harm()
    said = ", ".join(f"{n} {status}" for status, n in sorted(seen.items()))
    problem = "; ".join([*wrong[:3], *([harm] if harm else [])])
    asked = "generated requests: the legal ones are answered, all others refused"
    return Row(1, asked, f"{said}; {problem}" if problem else said, sum(seen.values()), not problem)


def _mostly(right: Any, *others: Any) -> Any:
    """What is right nine times of ten, else one of the others."""
    return st.integers(0, 9).flatmap(lambda k: st.just(right) if k else st.one_of(*others))


@st.composite
def requests(draw: Any, model: str) -> Any:
    """A request of which each field is right, nearly right, or anything."""
    text = st.text(max_size=20)
    size = st.sampled_from([0, 1, 2, BOUNDARY - 1, BOUNDARY, 64, 65, -1, 2**31, 2**62, -(2**63)])
    special = st.sampled_from([0.0, 1.0, -1e30, 1e-40, np.nan, np.inf])
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    values = np.zeros(draw(_mostly(batch * BOUNDARY, st.integers(0, 70 * BOUNDARY))), np.float32)
    if len(values):
        values[-1] = draw(_mostly(1.0, special))
    raw = values.tobytes()
    copies = _mostly(1, st.sampled_from([0, 2]))
    head = messages.ModelInferRequest.InferInputTensor(
        name=draw(_mostly("boundary", st.just("image"), text)),
        datatype=draw(_mostly("FP32", st.sampled_from(["INT8", "BYTES", "FP64"]), text)),
        shape=draw(_mostly([batch, BOUNDARY], st.lists(size, max_size=4))),
    )
    return messages.ModelInferRequest(
        model_name=draw(_mostly(model, text)),
        model_version=draw(_mostly("", st.sampled_from(["1", "2"]), text)),
        id=draw(_mostly("7", text)),
        inputs=[head] * draw(copies),
        outputs=[
            messages.ModelInferRequest.InferRequestedOutputTensor(name=name)
            for name in draw(_mostly([], st.sampled_from([["logits"], ["early"]])))
        ],
        raw_input_contents=[raw[: len(raw) - draw(_mostly(0, st.integers(1, 8)))]] * draw(copies),
    )


NBYTES = 4 * BOUNDARY


def _legal(request: Any, model: str) -> bool:
    """Whether the protocol and the model's contract allow it, by rules written anew."""
    if request.model_name != model or request.model_version not in ("", "1"):
        return False
    if len(request.inputs) != 1 or len(request.raw_input_contents) != 1:
        return False
    if any(output.name != "logits" for output in request.outputs):
        return False
    tensor, raw = request.inputs[0], request.raw_input_contents[0]
    if (tensor.name, tensor.datatype) != ("boundary", "FP32"):
        return False
    if len(tensor.shape) != 2 or tensor.shape[1] != BOUNDARY or not 1 <= tensor.shape[0] <= 64:
        return False
    if len(raw) != tensor.shape[0] * NBYTES:
        return False
    return bool(np.isfinite(np.frombuffer(raw, np.float32)).all())


def fuzzed(quick: bool) -> Iterator[Row]:
    """Promise 2."""
    seconds = 5.0 if quick else 120.0
    with serving() as server:
        before = server.counters()
        good = good_request(server.model).SerializeToString()
        recorded = beginning(headers(), framed(good), end=True)
        kinds = {
            "random bytes": lambda chance: chance.randbytes(chance.randrange(1, 2000)),
            "mutated HTTP/2 frames": lambda chance: mutated(recorded, chance),
        }
        for name, make in kinds.items():
            with good_client(server) as client:
                count = _shower(server.port, make, seconds)
                seen = client.seen()
            harm = server.harm() or server.left(before, within_s=8)
            worst = f"{seen}; {harm}" if harm else str(seen)
            ok = not harm and seen.share >= 0.999 and seen.wrong == 0
            yield Row(2, f"{name} on connections of their own", worst, count, ok)
        yield _mutated_messages(server, good, 2_000 if quick else 100_000)


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """``raw`` with a few bytes flipped, cut out, put in, said twice, or cut short."""
    found = bytearray(raw)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(found) or 1)
        some = chance.randrange(1, 20)
        kind = chance.randrange(5)
        if kind == 0 and found:
            found[at] = chance.randrange(256)
        elif kind == 1:
            del found[at : at + some]
        elif kind == 2:
            found[at:at] = chance.randbytes(some)
        elif kind == 3:
            found[at:at] = found[at : at + some]
        else:
            found = found[: max(at, len(found) // 2)]
    return bytes(found)


def _shower(port: int, make: Any, seconds: float) -> int:
    """Connections one after the other, four at once, each with bytes of its own; how many."""
    counts, until = [0] * 4, time.monotonic() + seconds

    def pour(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.05) as found:
                    found.sendall(make(chance))
                    while found.recv(65536):
                        pass
            except OSError:
                pass
            counts[number] += 1

    threads = [threading.Thread(target=pour, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def _mutated_messages(server: Server, good: bytes, count: int) -> Row:
    """Requests whose bytes were changed on the way."""
    chance, seen, slowest = random.Random(0), Count[str](), 0.0
    for _ in range(count):
        began = time.monotonic()
        try:
            server.call("ModelInfer", mutated(good, chance))
            seen["OK"] += 1
        except grpc.RpcError as error:
            seen[error.code().name] += 1
        slowest = max(slowest, time.monotonic() - began)
    harm = server.harm()
    told = ", ".join(f"{n} {name}" for name, n in sorted(seen.items()))
    said = f"{told}, the slowest {1000 * slowest:.0f} ms"
    ok = not harm and slowest <= 1.0 and set(seen) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    return Row(
        2, "mutated protobuf: answered or refused", f"{said}; {harm}" if harm else said, count, ok
    )


PARTS: dict[int, Rows] = {1: malformed, 2: fuzzed}
