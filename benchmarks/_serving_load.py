"""The server under load: real tails with and without batches, many edges, overload, greed.

The server is ``presplit serve`` in its own process, the load comes from another
(`benchmarks._load`). Weights are random: times are those of any net of that shape.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import _serving_nets as nets
from benchmarks._load import Client, Seen, Wanted
from benchmarks._serving import Asked, Found, apart
from presplit.bundle import Bundle
from presplit.core.errors import ServerError
from presplit.core.plans import Plan
from presplit.lab.processes import running
from presplit.runtime import Edge

CALLERS = 16
PATIENT_S = 5.0
"""The deadline of those whose throughput is measured."""
DEADLINE_S = 0.2
"""The deadline under overload; one request alone takes a tenth of it."""
OFFERED = (1, 2, 5, 10)
"""Times the load that is offered at first, nine tenths of what the server can answer."""
ROOM_S = 0.01
"""An edge that waits for a reply until its deadline needs a moment to say what it holds."""
EDGE_HZ = 20.0
BOTH = {"alone": ("--batch", "1"), "joined": ()}
"""Servers by what they do, and the flags with which they do it."""


@dataclass(frozen=True)
class _Net:
    """A bundle, and the file with samples for its whole net."""

    bundle: Bundle
    samples: str

    @property
    def model(self) -> str:
        """The tail that is asked for: all of the net."""
        return self.bundle.manifest.model_name(0, "float32")

    def client(self, name: str = "all", **options: Any) -> Client:
        """Somebody who asks this net."""
        options = {"deadline_s": PATIENT_S, **options}
        return Client(name=name, model=self.model, samples=self.samples, **options)


@contextlib.contextmanager
def _net(make: Callable[..., Bundle], shape: Sequence[int], **options: int) -> Iterator[_Net]:
    """The net that ``make`` gives, while it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npy"
        np.save(path, nets.samples(*shape, count=64))
        yield _Net(make(Path(folder) / "net.bundle", **options), str(path))


@contextlib.contextmanager
def _serving(net: _Net, *flags: str) -> Iterator[str]:
    """The address of a server of the net."""
    words = ("--json", "--port", "0", "--log", "none", *flags)
    with running("presplit", "serve", str(net.bundle.path), *words) as (address, _):
        yield address


def _load(address: str, clients: Sequence[Client], seconds: float, seed: int = 0) -> _Came:
    """What came of a load by these clients."""
    wanted = Wanted(address, tuple(clients), seconds, warm_s=seconds / 5, seed=seed)
    words = [sys.executable, "-m", "benchmarks._load", msgspec.json.encode(wanted).decode()]
    done = subprocess.run(words, capture_output=True)
    if done.returncode:
        raise ServerError(f"the load failed: {done.stderr.decode()[-500:]}")
    seen = msgspec.json.decode(done.stdout, type=dict[str, Seen])
    return _Came(seen, wanted.seconds - wanted.warm_s)


@dataclass(frozen=True)
class _Came:
    """What came of a load, by client, in so many seconds."""

    seen: Mapping[str, Seen]
    seconds: float

    def good(self, within_s: float, *names: str) -> float:
        """Answers a second that were there in time, of these clients or all."""
        ok = [took for name in names or self.seen for took in self.seen[name].ok]
        return sum(took <= within_s for took in ok) / self.seconds

    @property
    def ok(self) -> list[float]:
        """Seconds of all that were answered."""
        return [took for seen in self.seen.values() for took in seen.ok]

    @property
    def refused(self) -> list[float]:
        """Seconds of all that were refused."""
        return [took for seen in self.seen.values() for took in seen.refused]

    @property
    def late(self) -> list[float]:
        """Seconds by which requests left too late."""
        return [late for seen in self.seen.values() for late in seen.late]

    def cells(self, within_s: float) -> dict[str, Any]:
        """A row's figures."""
        codes = sum((Counter(seen.codes) for seen in self.seen.values()), Counter[str]())
        return {
            "offered_per_s": codes.total() / self.seconds,
            "load_late_p99_ms": _ms(self.late, 0.99),
            "good_per_s": self.good(within_s),
            "p50_ms": _ms(self.ok, 0.5),
            "p99_ms": _ms(self.ok, 0.99),
            "refused_share": len(self.refused) / max(1, codes.total()),
            "refused_p99_ms": _ms(self.refused, 0.99),
            "early_share": sum(s.early for s in self.seen.values()) / max(1, len(self.ok)),
        }


def _ms(took: Sequence[float], share: float) -> float:
    """A quantile in milliseconds; 0 of nothing."""
    return 1000 * float(np.quantile(took, share)) if took else 0.0


def tails(asked: Asked) -> Found:
    """16 callers and real tails: what batches give against each request alone."""
    found = Found()
    with _net(nets.convolutions, (3, nets.SIZE, nets.SIZE)) as net:
        gain, slower = _in_turns(asked, found, "CNN", net, BOTH)
    found.check("CNN tail: requests/s joined / alone", gain, 0.97)
    found.check("CNN tail: p99 joined / alone", slower, 1.1, at_most=True)
    with _net(nets.perceptron, (nets.WIDTH,)) as net:
        gain, slower = _in_turns(asked, found, "MLP", net, BOTH)
    found.check("1024-wide MLP tail: requests/s joined / alone", gain, 1.5)
    found.check("1024-wide MLP tail: p99 joined / alone", slower, 1.1, at_most=True)
    return found


def exits(asked: Asked) -> Found:
    """16 callers of a deep tail with exits: what those, with survivors joined again, give."""
    found = Found()
    with _net(nets.perceptron, (nets.WIDTH,), depth=48) as net:
        rules = nets.thresholds_for(net.bundle, np.load(net.samples))
        flags = [word for name, t in rules.items() for word in ("--threshold", f"{name}={t}")]
        gain, _ = _in_turns(
            asked,
            found,
            "MLP with exits",
            net,
            {"alone": ("--batch", "1"), "whole, joined": (), "exits, joined": tuple(flags)},
        )
        found.check("exits, survivors joined again: goodput / whole tail alone", gain, 1.5)
        whole = _requests(found, "MLP with exits", "whole, joined")
        gain = _requests(found, "MLP with exits", "exits, joined") / whole
        found.check("exits, survivors joined again: goodput / whole tail joined", gain, 1.5)
    return found


def _in_turns(
    asked: Asked, found: Found, case: str, net: _Net, servers: Mapping[str, tuple[str, ...]]
) -> tuple[float, float]:
    """The last server's requests a second and p99 against the first's: medians of the rounds."""
    rounds, seconds = (1, 1.5) if asked.quick else (5, 2.5)
    came: dict[str, list[_Came]] = {who: [] for who in servers}
    with contextlib.ExitStack() as stack:
        addresses = {
            who: stack.enter_context(_serving(net, *flags)) for who, flags in servers.items()
        }
        # Four connections, as four edges would have.
        clients = [net.client(f"c{k}", callers=CALLERS // 4) for k in range(4)]
        for _, who in itertools.product(range(rounds), servers):
            came[who].append(_load(addresses[who], clients, seconds))
    for who, each in came.items():
        found.row("tails", case, who, **_middle(each, PATIENT_S))
    first, *_, last = came.values()
    pairs = list(zip(first, last, strict=True))
    gain = statistics.median(b.good(PATIENT_S) / a.good(PATIENT_S) for a, b in pairs)
    return gain, statistics.median(_ms(b.ok, 0.99) / _ms(a.ok, 0.99) for a, b in pairs)


def _requests(found: Found, case: str, who: str) -> float:
    """Requests a second of a row that is there."""
    rows = (row for row in found.rows if (row["case"], row["who"]) == (case, who))
    return next(rows)["good_per_s"]


def edges(asked: Asked) -> Found:
    """1, 10 and 100 edges against one server: what is answered in time, and how evenly."""
    found = Found()
    with _net(nets.convolutions, (3, nets.SIZE, nets.SIZE)) as net, _serving(net) as address:
        for count in (1, 10, 100):
            clients = [
                net.client(f"edge{k}", callers=1, deadline_s=DEADLINE_S) for k in range(count)
            ]
            came = _load(address, clients, 2.0 if asked.quick else 8.0)
            even = _jain([came.good(DEADLINE_S, name) for name in came.seen])
            found.row("edges", f"{count} edges", "presplit", **came.cells(DEADLINE_S), jain=even)
            if count > 1:
                found.check(f"{count} edges: Jain's index of their answers in time", even, 0.9)
    return found


def _jain(shares: Sequence[float]) -> float:
    """1 if all have the same, 1 / n if one has all (Jain, Chiu and Hawe, 1984)."""
    squares = len(shares) * sum(share**2 for share in shares)
    return sum(shares) ** 2 / squares if squares else 0.0


def overload(asked: Asked) -> Found:
    """An open loop at 1, 2, 5 and 10 times: answers in time, refusals, and an edge beside it."""
    found, (rounds, seconds) = Found(), _rounds(asked)
    shape = (3, nets.SIZE, nets.SIZE)
    came: dict[int, list[_Came]] = {times: [] for times in OFFERED}
    took: dict[int, list[float]] = {times: [] for times in OFFERED}
    with (
        apart() as go_over,
        _net(nets.convolutions, shape, wide=6) as net,
        _serving(net) as address,
    ):
        go_over()
        callers = [net.client(f"c{k}", callers=2) for k in range(8)]
        most = _load(address, callers, 2 * seconds).good(PATIENT_S)
        for seed, times in itertools.product(range(rounds), OFFERED):
            rate = 0.9 * most * times / 8
            clients = [net.client(f"c{k}", rate_hz=rate, deadline_s=DEADLINE_S) for k in range(8)]
            with _edge(net.bundle, address) as answers:
                came[times].append(_load(address, clients, seconds, seed))
            took[times] += answers
    for times, each in came.items():
        in_time = sum(s <= DEADLINE_S + ROOM_S for s in took[times]) / max(1, len(took[times]))
        cells = _middle(each, DEADLINE_S)
        found.row("overload", f"{times}x", "presplit", **cells, edge_in_time=in_time)
        found.check(f"{times}x: the edge's answers in time", in_time, 1.0)
        if times == 1:
            continue
        pairs = zip(each, came[1], strict=True)
        kept = statistics.median(a.good(DEADLINE_S) / b.good(DEADLINE_S) for a, b in pairs)
        found.check(f"{times}x: goodput / that at 1x", kept, 0.9)
        late = cells["refused_p99_ms"]
        found.check(f"{times}x: refusals' p99, ms", late, 20.0, at_most=True)
    return found


def _rounds(asked: Asked) -> tuple[int, float]:
    """How many rounds of so many seconds: what the machine does besides changes in between."""
    return (1, 1.5) if asked.quick else (4, 3.0)


def _middle(came: Sequence[_Came], within_s: float) -> dict[str, float]:
    """A row's figures, the medians of the rounds."""
    cells = [one.cells(within_s) for one in came]
    return {key: statistics.median(cell[key] for cell in cells) for key in cells[0]}


@contextlib.contextmanager
def _edge(bundle: Bundle, address: str) -> Iterator[list[float]]:
    """Seconds of an edge's answers, which come while it lasts."""
    took: list[float] = []
    image, over = nets.samples(3, nets.SIZE, nets.SIZE, count=1)[0], threading.Event()

    def ask(edge: Edge) -> None:
        while not over.wait(1 / EDGE_HZ):
            began = time.monotonic()
            edge.answer(image)
            took.append(time.monotonic() - began)

    with Edge.open(bundle, server=address, plan=Plan(1, deadline_s=DEADLINE_S)) as edge:
        edge.answer(image)
        thread = threading.Thread(target=ask, args=(edge,))
        thread.start()
        try:
            yield took
        finally:
            over.set()
            thread.join()


def tenants(asked: Asked) -> Found:
    """Four tenants known by their certificates, one of them greedy: what is left to the others."""
    found, (rounds, seconds) = Found(), _rounds(asked)
    names, modest = [f"tenant{k}" for k in range(4)], [f"tenant{k}" for k in range(1, 4)]
    shape = (3, nets.SIZE, nets.SIZE)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys"
        keys = _keys(folder, names)
        net = stack.enter_context(_net(nets.convolutions, shape, wide=6))
        pem = {"cert": "server.pem", "key": "server.key", "ca": "ca.pem"}
        flags = [word for key, file in pem.items() for word in (f"--tls-{key}", f"{folder}/{file}")]
        flags += ["--allow", f"{folder}/allowed.txt"]
        go_over = stack.enter_context(apart())
        address = stack.enter_context(_serving(net, *flags)).replace("127.0.0.1", "localhost")
        go_over()
        callers = [net.client(name, callers=4, keys=keys[name]) for name in names]
        most = _load(address, callers, 2 * seconds).good(PATIENT_S)
        greeds = {"all modest": 0.15, "one greedy": 5.0}
        came: dict[str, list[_Came]] = {case: [] for case in greeds}
        for seed, case in itertools.product(range(rounds), greeds):
            clients = [
                net.client(
                    name,
                    rate_hz=most * (0.15 if name in modest else greeds[case]),
                    deadline_s=DEADLINE_S,
                    keys=keys[name],
                )
                for name in names
            ]
            came[case].append(_load(address, clients, seconds, seed))
    for case, (who, of) in itertools.product(
        came, {"the three others": modest, "the fourth": names[:1]}.items()
    ):
        parts = [_Came({name: one.seen[name] for name in of}, one.seconds) for one in came[case]]
        found.row("tenants", case, who, **_middle(parts, DEADLINE_S))
    # The same moments of the same seed are asked for in both cases, so sums may be compared.
    before, beside = (sum(one.good(DEADLINE_S, *modest) for one in each) for each in came.values())
    kept = beside / before
    found.check("one of four tenants is greedy: what the others keep", kept, 0.9)
    return found


def _keys(folder: Path, names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Certificates of a server on this machine and of these edges, as ``presplit keys`` makes."""
    words = [word for name in names for word in ("--edge", name)]
    command = [sys.executable, "-m", "presplit", "keys", str(folder), "--server", "localhost"]
    subprocess.run([*command, *words], check=True, capture_output=True)
    found: dict[str, tuple[str, str, str]] = {}
    for name in names:
        shows = f"{folder}/edge-{name}"
        found[name] = (f"{folder}/ca.pem", f"{shows}.pem", f"{shows}.key")
    return found


PARTS = {"tails": tails, "exits": exits, "edges": edges, "overload": overload, "tenants": tenants}
"""What this file adds to the benchmark of serving."""
