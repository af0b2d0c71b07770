"""``presplit measure``: what parts of a net take on this machine, and what a link is like."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli import completing, options
from presplit.cli.following import again
from presplit.cli.options import Json, read_costs, show
from presplit.cli.secure import EdgeCa, TlsCert, TlsKey, TokenFile, edge_with
from presplit.core.progress import doing

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.costs import Costs
    from presplit.core.value import Value
    from presplit.runtime.wire.credentials import ClientCredentials

STABLE = 0.02
"""Medians that are known to this share are called stable."""


def measure(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle directory.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write what was found here, for presplit plan.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.devices,
            help="What this machine is: its watts give the energy (name, file, numbers).",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="About how long at most; default 60, for others 10.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    pause_ms: Annotated[
        float, typer.Option(min=0, help="Rest before each stretch, as between two answers.")
    ] = 20.0,
    samples: Annotated[
        Path | None,
        typer.Option(help="A .npy file; its first sample is taken in place of noise."),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(help="Bring these costs, measured here before, to how the machine is now."),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(help="Measure the link to the presplit serve at HOST:PORT; no bundle."),
    ] = None,
    tls_ca: EdgeCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    profiles: Annotated[
        bool, typer.Option("--profiles", help="List the devices and links that have names.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure what every part of a net takes on this machine, or what a link is like."""
    if profiles:
        _list_profiles(as_json=json)
    elif link is not None:
        known = edge_with(
            link, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, token_file=token_file
        )
        _measure_link(link, known, 10.0 if seconds is None else seconds, out, as_json=json)
    elif bundle is None:
        raise typer.BadParameter("give a BUNDLE, or --link HOST:PORT, or --profiles")
    else:
        from presplit.bundle import read

        found = read(bundle)
        if anchor is not None:
            costs = _anchored(found, anchor, seconds)
        else:
            costs = _costs(found, device, seconds, threads, pause_ms / 1000, samples)
        _write(out, costs)
        after = again(options.given, "--out", "costs.json")
        if out is not None:
            after = f"presplit plan {quote(str(bundle))} --edge-costs {quote(str(out))} --save"
        _show_costs(found, costs, after, as_json=json)


def _costs(
    bundle: Bundle,
    device: str | None,
    seconds: float | None,
    threads: int,
    pause_s: float,
    samples: Path | None,
) -> Costs:
    """The costs of the bundle here, all of them measured."""
    from presplit.bundle import as_input
    from presplit.core.errors import context
    from presplit.profiles import device_from
    from presplit.runtime.measuring.measure import measure as time_parts

    sample = None
    if samples is not None:
        with context(str(samples)):
            from presplit.bundle.samples import read_samples

            first = read_samples(samples)[:1]
            sample = as_input(first, whole=bundle.manifest.whole_input)[0]
    limit_s = 60.0 if seconds is None else seconds
    with doing("measuring, until it is known well enough", limit_s, still=True):
        return time_parts(
            bundle,
            seconds=limit_s,
            threads=threads,
            pause_s=pause_s,
            device=device_from(device) if device else "this machine",
            sample=sample,
        )


def _anchored(bundle: Bundle, known: Path, seconds: float | None) -> Costs:
    """The costs in the file ``known``, brought by a few probes to how this machine is now."""
    from presplit.runtime.measuring.anchor import anchor

    before = read_costs(known)
    assert before is not None, "a file was given"
    return anchor(before, bundle, seconds=10.0 if seconds is None else seconds)


def _show_costs(bundle: Bundle, costs: Costs, after: str, *, as_json: bool) -> None:
    """A table of heads and tails, then what surrounds them."""
    import msgspec

    from presplit.core import units
    from presplit.core.tables import columns_of, table

    lines: list[str] = []
    for form, parts in costs.forms.items():
        rows = [
            {
                "boundary": str(k),
                "head p50": units.seconds(head.quantile(0.5)),
                "p99": units.seconds(head.quantile(0.99)),
                "tail p50": units.seconds(tail.quantile(0.5)),
                "tail p99": units.seconds(tail.quantile(0.99)),
            }
            for k, (head, tail) in enumerate(zip(parts.head_s, parts.tail_s, strict=True))
        ]
        lines += [f"{form}:", table(rows, columns_of(rows))]
        adds = [
            f"{exit_.name} {units.seconds(seconds.mean_s)}"
            for exit_, seconds in zip(bundle.net.exits[:-1], parts.exit_s, strict=False)
        ]
        if adds:
            lines.append(f"exits add: {', '.join(adds)}")
    whole = costs.forms["float32"].tail_s[0].quantile(0.5)
    lines.append(f"all: {units.seconds(whole)} on {costs.device} ({costs.processor})")
    lines.append(_surroundings(costs))
    precision = costs.precision or 0.0
    state = "stable" if precision <= STABLE else "not stable when the time was over"
    lines.append(f"medians are {state}: ± {100 * precision:.1f} %; {costs.clock}")
    lines.append(f"Next: {after}")
    show(msgspec.to_builtins(costs), "\n".join(lines), as_json=as_json)


def _surroundings(costs: Costs) -> str:
    """What an answer, a request, the memory and the energy are, in one line."""
    from presplit.core import units

    said = [
        f"an answer adds {units.seconds(costs.answer_s.quantile(0.5))}",
        f"asking a server {units.seconds(costs.ask_s.quantile(0.5))}",
    ]
    if costs.peak_bytes is not None:
        said.append(f"peak memory {units.data(costs.peak_bytes)}")
    if costs.energy != "unknown":
        said.append(f"{costs.power_w:g} W ({costs.energy})")
    return ", ".join(said)


def _measure_link(
    server: str,
    known: ClientCredentials | None,
    seconds: float,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure the link, and say what it is like."""
    import msgspec

    from presplit.core import units
    from presplit.runtime.doors import check_positive
    from presplit.runtime.measuring.measure_link import measure_link

    check_positive("seconds", seconds)
    with doing("measuring the link"):
        found = measure_link(server, seconds=seconds, credentials=known)
    link = found.link
    _write(out, link)
    window = "no waiting after a pause"
    if link.window_bytes is not None:
        window = f"{units.data(link.window_bytes)} at once after a pause"
    lines = [
        f"up {link.up_bps / 1e6:.3g} Mbit/s, down {link.down_bps / 1e6:.3g} Mbit/s",
        f"round trip {units.seconds(link.rtt_s)}, each way late by up to "
        f"{units.seconds(link.jitter_s)}; {window}",
        f"{found.stalls} of {found.trips} requests stalled",
    ]
    if out is not None:
        lines.append(f"Next: presplit plan BUNDLE --link {quote(str(out))} --save")
    else:
        lines.append(f"Next: {again(options.given, '--out', 'link.json')}, which plans can use")
    show(msgspec.to_builtins(link), "\n".join(lines), as_json=as_json)


def _list_profiles(*, as_json: bool) -> None:
    """Every named device and link, with where its numbers are from."""
    import msgspec

    from presplit.core import units
    from presplit.core.tables import columns_of, table
    from presplit.profiles import DEVICES, LINKS

    devices = [
        {
            "device": each.name,
            "MACs/s": units.count(each.macs_per_s),
            "memory": units.data(each.memory_bytes),
            "power": f"{each.power_w:g} W",
            "a call": units.seconds(each.overhead_s),
        }
        for each in DEVICES.values()
    ]
    links = [
        {
            "link": each.name,
            "up": f"{each.up_bps / 1e6:g} Mbit/s",
            "down": f"{each.down_bps / 1e6:g} Mbit/s",
            "round trip": units.seconds(each.rtt_s),
            "jitter": units.seconds(each.jitter_s),
            "loss": f"{100 * each.loss:g} %",
            "power": f"{each.power_w:g} W",
        }
        for each in LINKS.values()
    ]
    text = [
        table(devices, columns_of(devices)),
        table(links, columns_of(links)),
        "All are guesses; --json has the source and the date of each.",
    ]
    result: dict[str, Any] = {
        "devices": [msgspec.to_builtins(each) for each in DEVICES.values()],
        "links": [msgspec.to_builtins(each) for each in LINKS.values()],
    }
    show(result, "\n\n".join(text), as_json=as_json)


def _write(out: Path | None, value: Value) -> None:
    """Write ``value`` to the file ``out``, if one was given; raises `SpecError` if it cannot be."""
    import msgspec

    from presplit.core.errors import SpecError

    if out is None:
        return
    try:
        out.write_bytes(msgspec.json.encode(value) + b"\n")
    except OSError as error:
        raise SpecError(f"{out}: cannot be written ({error.strerror})") from error
