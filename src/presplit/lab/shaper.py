"""A shaped link in user space.

It is a TCP proxy with a rate, a delay, jitter and outages, changed while it runs.

Bytes are stamped with the time at which a link of that rate and delay would deliver them, and are
written then, in pieces as `presplit.core.link` reckons with them. All connections share the rate,
each direction has its own. What a proxy cannot do:
TCP's own headers are not counted, and packets cannot be lost (``Link.loss`` is not emulated; an
outage is). asyncio sets TCP_NODELAY on both sides, so nothing waits for more to send.

``python -m presplit.lab.shaper --target HOST:PORT --up-bps 10e6 --down-bps 10e6 --rtt-s 0.02``
prints one line of JSON with the address it listens on, and takes orders as lines of JSON on
standard input: ``{"outage": true}``, ``{"reset": true}``, ``{"up_bps": 1e6, "rtt_s": 0.1}``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct, structs

from presplit.core.errors import PresplitError, ServerError, SpecError
from presplit.core.link import Link, piece_bytes

QUEUE_S = 0.01
"""How far ahead of the link bytes are taken from a sender: the buffer of a modest network card."""


class Shaper:
    """A proxy in front of ``target`` (``HOST:PORT``) that behaves like ``link``.

    It is used on one event loop.

    ``link`` may be assigned anew at any time. While ``outage`` is true, bytes stop and connections
    stay.
    """

    def __init__(self, target: str, link: Link, *, seed: int = 0) -> None:
        self._target = _host_and_port(target)
        self.link = link
        self._random = random.Random(seed)
        self._passing = asyncio.Event()
        self._passing.set()
        self._free = {"up": 0.0, "down": 0.0}
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def outage(self) -> bool:
        """True while nothing passes."""
        return not self._passing.is_set()

    @outage.setter
    def outage(self, value: bool) -> None:
        if value:
            self._passing.clear()
        else:
            self._passing.set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen and give ``HOST:PORT``; raises `ServerError` if that is not possible."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port"
            ) from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def reset(self) -> None:
        """Cut every connection at once, as a restarted router would."""
        for connection in self._connections:
            connection.cancel()

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            self.reset()
            await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in a task that can be cut."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its handshake to its end."""
        ends, whole = [writer], False
        try:
            await asyncio.sleep(self.link.rtt_s)  # the handshake's own round trip
            await self._passing.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry("up", reader, far_writer))
                both.create_task(self._carry("down", far_reader, writer))
            whole = True
        except* OSError:
            pass  # the target refused, or one side broke: both ends see a cut
        finally:
            for end in ends:
                end.close() if whole else _cut(end)

    async def _carry(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry bytes from ``reader`` to ``writer`` at the link's rate and with its delay."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(way, reader, line))
            both.create_task(self._deliver(line, writer))

    async def _take(
        self, way: str, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Stamp what is read with its time of delivery; an empty piece is the end."""
        now = asyncio.get_running_loop().time
        arrives = 0.0
        while True:
            piece = await reader.read(piece_bytes(self._bps(way)))
            await self._passing.wait()
            self._free[way] = max(now(), self._free[way]) + 8 * len(piece) / self._bps(way)
            late = self.link.rtt_s / 2 + self.link.jitter_s * self._random.random()
            arrives = max(arrives, self._free[way] + late)  # jitter does not reorder a stream
            line.put_nowait((arrives, piece))
            if not piece:
                return
            await asyncio.sleep(self._free[way] - now() - QUEUE_S)

    def _bps(self, way: str) -> float:
        """The rate of one direction, as it is now."""
        return self.link.up_bps if way == "up" else self.link.down_bps

    async def _deliver(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        """Write each piece when it is due."""
        now = asyncio.get_running_loop().time
        while True:
            due, piece = await line.get()
            await asyncio.sleep(due - now())
            await self._passing.wait()
            if not piece:
                writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()


class Order(Struct, forbid_unknown_fields=True):
    """One line of standard input: what to change."""

    outage: bool | None = None
    reset: bool = False
    up_bps: float | None = None
    down_bps: float | None = None
    rtt_s: float | None = None
    jitter_s: float | None = None


def obey(shaper: Shaper, line: bytes) -> None:
    """Change ``shaper`` as ``line`` says.

    Raises `SpecError` for a line that is not an `Order` with legal values.
    """
    try:
        order = msgspec.json.decode(line, type=Order)
        names = ("up_bps", "down_bps", "rtt_s", "jitter_s")
        changes = {name: getattr(order, name) for name in names if getattr(order, name) is not None}
        link = structs.replace(shaper.link, **changes)
    except (msgspec.MsgspecError, UnicodeDecodeError, SpecError) as error:
        raise SpecError(
            f'an order is one line of JSON such as {{"outage": true}}: {error}'
        ) from error
    shaper.link = link
    if order.outage is not None:
        shaper.outage = order.outage
    if order.reset:
        shaper.reset()


def _cut(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset, dropping what is still to be sent."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _host_and_port(address: str) -> tuple[str, int]:
    """The two parts of ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise SpecError(f"target must be HOST:PORT, got {address!r}")
    return host.strip("[]"), int(port)


async def _run(target: str, link: Link, port: int) -> None:
    """Say where the shaper listens, then obey standard input until SIGTERM or SIGINT."""
    shaper = Shaper(target, link)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    address = await shaper.start(port=port)
    print(msgspec.json.encode({"address": address}).decode(), flush=True)
    orders = asyncio.create_task(_obey_standard_input(shaper))
    await stopped.wait()
    orders.cancel()
    await shaper.close()


async def _obey_standard_input(shaper: Shaper) -> None:
    """Each line is an order; a wrong one is answered on standard error and changes nothing."""
    reader = asyncio.StreamReader()
    try:
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
    except ValueError:  # standard input is a file or closed: no orders come from there
        return
    while line := await reader.readline():
        try:
            obey(shaper, line)
        except SpecError as error:
            print(error, file=sys.stderr, flush=True)


def _exact_loop() -> asyncio.AbstractEventLoop:
    """A loop whose waits are as long as they are asked to be."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a shaper from the command line; exit code 2 and one sentence for what a user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m presplit.lab.shaper", description="Shape a TCP link."
    )
    parser.add_argument("--target", required=True, help="HOST:PORT")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one")
    parser.add_argument("--up-bps", type=float, default=10e6)
    parser.add_argument("--down-bps", type=float, default=10e6)
    parser.add_argument("--rtt-s", type=float, default=0.02)
    parser.add_argument("--jitter-s", type=float, default=0.0)
    chosen = parser.parse_args(arguments)
    try:
        link = Link(
            "emulated",
            up_bps=chosen.up_bps,
            down_bps=chosen.down_bps,
            rtt_s=chosen.rtt_s,
            jitter_s=chosen.jitter_s,
        )
        # The usual loop rounds each wait up to a whole millisecond; this one does not.
        with asyncio.Runner(loop_factory=_exact_loop) as runner:
            runner.run(_run(chosen.target, link, chosen.port))
    except PresplitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
