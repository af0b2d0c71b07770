"""What ``presplit run`` says at the end of the server that it asked: counts, failures, cures.

Why an answer is as it is goes by codes alone. The sentences of gRPC, which change, are passed on
here to people, and looked through only for what to advise them.
"""

from __future__ import annotations

from collections.abc import Mapping

from presplit.cli.options import say

SHOWN = 300
"""Characters of a failure's own words that are shown."""
HANGS_UP = (
    "somebody listens there and hangs up: a server with TLS does so on who comes without "
    "(grpcs://, --tls-ca) or shows no certificate that it admits (--tls-cert, --tls-key)"
)
ADVICE = (
    (
        "name verification",
        "its certificate does not name this address: presplit keys --server makes one that does",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is of no authority that is trusted here, or has expired: give the "
        "server's authority with --tls-ca",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "it does not speak TLS: leave grpcs:// and the --tls options out, or serve with --tls-cert",
    ),
    ("handshake failed", "the TLS handshake failed"),
    ("Connection refused", "nobody listens there: is presplit serve running?"),
    ("resol", "there is no host of that name"),
    ("closed", HANGS_UP),
    ("reset", HANGS_UP),
    (
        "UNAUTHENTICATED",
        "it does not admit this edge: its token (--token-file) is none that the server knows",
    ),
    (
        "PERMISSION_DENIED",
        "it does not admit this edge: its certificate's name is not on the server's list (--allow)",
    ),
)
"""What a failure's words hold, and what they mean; the first that fits is said."""


def advice_on(detail: str, usual: str) -> str:
    """What the words of a failure mean and may be cured by; ``usual`` if they tell nothing known.

    >>> advice_on("UNAVAILABLE: Failed to connect: Connection refused", "is it there?")
    'nobody listens there: is presplit serve running?'
    """
    words = detail.lower()
    return next((meaning for word, meaning in ADVICE if word.lower() in words), usual)


def say_of_server(
    server: str, whys: Mapping[str, int], counts: Mapping[str, int], said: Mapping[str, str]
) -> None:
    """Say what was asked of ``server``, and why it did not answer.

    ``whys`` count the answers by their why, ``counts`` are the edge's own, and ``said`` is what it
    was last told of a failure of each kind.
    """
    asked = {name: n for name, n in counts.items() if n and not name.startswith("answers ")}
    if asked:
        say(f"of {server}: {', '.join(f'{n} {name}' for name, n in asked.items())}")
    if whys.get("link_down"):
        detail = said.get("link_down", "")
        advice = advice_on(detail, "is presplit serve running there?")
        say(f"{server} could not be reached for {whys['link_down']} of them: {advice}")
        _say_words(detail)
    if whys.get("failed"):
        say(f"the server, or the engine here, failed for {whys['failed']} of them: see its output")
        _say_words(said.get("failed", ""))
    if whys.get("refused"):
        detail = said.get("refused", "")
        advice = advice_on(detail, "it hosts another bundle, or is no tail server of this one")
        say(f"{server} refused {whys['refused']} of them: {advice}")
        _say_words(detail)


def _say_words(detail: str) -> None:
    """Pass on what was told of a failure, cut where it is very long."""
    if detail:
        say(f"it was last told: {detail[:SHOWN]}")
