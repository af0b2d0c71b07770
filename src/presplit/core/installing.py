"""The ``pip install`` line that brings an extra, true for wherever this Presplit came from.

A line that names the package index is wrong for a clone or a wheel in a folder. Pip notes where it
took a package from (PEP 610, ``direct_url.json``), and this reads it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any, cast
from urllib.parse import unquote, urlsplit


def install_line(extra: str, *, origin: Mapping[str, Any] | None = None) -> str:
    """The command that installs ``extra`` of Presplit into this Python.

    ``origin``: what pip noted of where Presplit is from; as it is noted here if not given.

    >>> install_line("edge", origin={}).endswith(" 'presplit[edge]'")
    True
    """
    return f"{pip()} {_wanted(extra, noted() if origin is None else origin)}"


def noted() -> Mapping[str, Any]:
    """What pip noted of where Presplit is from; empty if it is from an index, or not installed."""
    try:
        text = importlib.metadata.distribution("presplit").read_text("direct_url.json")
        found: object = json.loads(text) if text else {}
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _wanted(extra: str, origin: Mapping[str, Any]) -> str:
    """What stands behind ``pip install``.

    >>> clone = {"url": "file:///home/me/presplit", "dir_info": {"editable": True}}
    >>> _wanted("train", clone)
    "-e '/home/me/presplit[train]'"
    >>> _wanted("edge", {"url": "file:///tmp/my%20wheels/presplit.whl", "archive_info": {}})
    "'/tmp/my wheels/presplit.whl[edge]'"
    >>> vcs = {"url": "https://a.b/p.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    >>> _wanted("edge", vcs)
    "'presplit[edge] @ git+https://a.b/p.git@c0ffee'"
    """
    url = str(origin.get("url", ""))
    if not url:
        return quote(f"presplit[{extra}]")
    if url.startswith("file:"):
        path = quote(f"{unquote(urlsplit(url).path)}[{extra}]")
        return f"-e {path}" if origin.get("dir_info", {}).get("editable") else path
    vcs = origin.get("vcs_info")
    if vcs:
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return quote(f"presplit[{extra}] @ {url}")


def pip() -> str:
    """The words that install into the Python that runs this.

    ``pip`` alone may be another Python's; where an environment has none, uv may be there.
    """
    here = Path(sys.executable).parent
    found = shutil.which("pip")
    if found is not None and Path(found).parent == here:
        return "pip install"
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {quote(sys.executable)}"
    return f"{quote(sys.executable)} -m pip install"
