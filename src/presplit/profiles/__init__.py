"""Named numbers of devices and links, each with its source and date: guesses until measured."""

from presplit.profiles.devices import DEVICES
from presplit.profiles.given import costs_from, device_from, link_from
from presplit.profiles.links import LINKS

__all__ = ["DEVICES", "LINKS", "costs_from", "device_from", "link_from"]
