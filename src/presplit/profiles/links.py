"""Links by name, for planning before anything was measured.

Each is a typical good day, not a peak: rates are what one TCP connection carries, ``rtt_s`` is the
empty round trip to a server behind the link, ``power_w`` what the edge's radio draws while it
sends. Where a source gives no number, it says "guess". A real deployment measures its own.
"""

from __future__ import annotations

from presplit.core.link import Link
from presplit.core.shelf import Shelf

_DATE = "2026-11-27"

LINKS: Shelf[Link] = Shelf(
    "link",
    {
        link.name: link
        for link in (
            Link(
                "nb-iot",
                up_bps=30e3,
                down_bps=20e3,
                rtt_s=1.6,
                jitter_s=0.5,
                power_w=0.7,
                source="3GPP release 13, Cat-NB1 multi-tone: peaks of 62.5 kbit/s up and 27.2 "
                "down; guess: half of the uplink's peak, three quarters of the downlink's, "
                "a round trip of 1.6 s, 0.7 W at 23 dBm",
                date=_DATE,
            ),
            Link(
                "lte-m",
                up_bps=300e3,
                down_bps=300e3,
                rtt_s=0.15,
                jitter_s=0.05,
                power_w=0.7,
                source="3GPP release 13, Cat-M1 half duplex: peaks of 375 kbit/s up and "
                "300 down; guess: four fifths of the uplink's peak, round trip, "
                "jitter, 0.7 W at 23 dBm",
                date=_DATE,
            ),
            Link(
                "3g",
                up_bps=1e6,
                down_bps=3e6,
                rtt_s=0.12,
                jitter_s=0.04,
                power_w=2.0,
                source="3GPP release 6, HSPA: peaks of 5.76 Mbit/s up and 14.4 down; "
                "guess: a fifth of them, round trip, jitter, power",
                date=_DATE,
            ),
            Link(
                "lte-poor",
                up_bps=1e6,
                down_bps=4e6,
                rtt_s=0.12,
                jitter_s=0.06,
                loss=0.002,
                power_w=4.5,
                source="guess: LTE at the edge of a cell or in a full one, a sixth of the "
                "medians of Huang et al., MobiSys 2012, power at the transmitter's "
                "most",
                date=_DATE,
            ),
            Link(
                "dsl",
                up_bps=2.4e6,
                down_bps=16e6,
                rtt_s=0.03,
                jitter_s=0.003,
                power_w=0.5,
                source="ITU-T G.992.5 annex M, ADSL2+: peaks of 3.3 Mbit/s up and 24 down; "
                "guess: seven tenths of them, round trip, jitter, power",
                date=_DATE,
            ),
            Link(
                "lte",
                up_bps=6e6,
                down_bps=13e6,
                rtt_s=0.07,
                jitter_s=0.015,
                power_w=3.9,
                source="Huang et al., MobiSys 2012: medians of 6 Mbit/s up, 13 down; "
                "guess: round trip, jitter, power",
                date=_DATE,
            ),
            Link(
                "wifi-busy",
                up_bps=8e6,
                down_bps=8e6,
                rtt_s=0.015,
                jitter_s=0.02,
                loss=0.001,
                power_w=1.0,
                source="IEEE 802.11n at 2.4 GHz shared with neighbours; guess: a fifth of "
                "the quiet channel's rate, queues of 20 ms",
                date=_DATE,
            ),
            Link(
                "satellite",
                up_bps=10e6,
                down_bps=80e6,
                rtt_s=0.045,
                jitter_s=0.02,
                loss=0.001,
                power_w=50.0,
                source="a low orbit (Starlink, 550 km): the operator states 5-20 Mbit/s "
                "up, 25-220 down and 25-60 ms; guess: values in the middle, jitter, "
                "loss; 50 W is the whole terminal",
                date=_DATE,
            ),
            Link(
                "5g",
                up_bps=30e6,
                down_bps=150e6,
                rtt_s=0.025,
                jitter_s=0.008,
                power_w=3.0,
                source="guess: mid-band 5G, non-standalone, a server in the same region",
                date=_DATE,
            ),
            Link(
                "wifi",
                up_bps=40e6,
                down_bps=40e6,
                rtt_s=0.004,
                jitter_s=0.002,
                power_w=1.0,
                source="IEEE 802.11n, 20 MHz, one stream: 72.2 Mbit/s on the air; "
                "guess: 55 % of it, a server on the same network",
                date=_DATE,
            ),
            Link(
                "10mbit",
                up_bps=10e6,
                down_bps=10e6,
                rtt_s=0.02,
                source="by definition: 10 Mbit/s both ways and a round trip of 20 ms, "
                "the shaped link of the demo",
                date=_DATE,
            ),
            Link(
                "fast-ethernet",
                up_bps=94e6,
                down_bps=94e6,
                rtt_s=0.0006,
                jitter_s=0.0001,
                power_w=0.3,
                source="IEEE 802.3u: 100 Mbit/s less 6 % of frame, IP and TCP headers; "
                "round trip and power are guesses",
                date=_DATE,
            ),
            Link(
                "wifi-5",
                up_bps=200e6,
                down_bps=200e6,
                rtt_s=0.003,
                jitter_s=0.0015,
                power_w=1.5,
                source="IEEE 802.11ac, 80 MHz, one stream: 433 Mbit/s on the air; guess: "
                "46 % of it, round trip, jitter, power",
                date=_DATE,
            ),
            Link(
                "wifi-6",
                up_bps=500e6,
                down_bps=500e6,
                rtt_s=0.002,
                jitter_s=0.001,
                power_w=2.0,
                source="IEEE 802.11ax, 80 MHz, two streams: 1,201 Mbit/s on the air; "
                "guess: 42 % of it, round trip, jitter, power",
                date=_DATE,
            ),
            Link(
                "ethernet",
                up_bps=940e6,
                down_bps=940e6,
                rtt_s=0.0004,
                jitter_s=0.0001,
                power_w=0.5,
                source="IEEE 802.3ab: 1 Gbit/s less 6 % of frame, IP and TCP headers; "
                "round trip and power are guesses",
                date=_DATE,
            ),
        )
    },
)
"""From the slowest to the fastest way up, but for the demo's."""
