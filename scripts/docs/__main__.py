"""Lays out the pages in ``build/docs`` and builds the site: python -m scripts.docs [serve].

What is laid out are the pages of ``docs``, those made from the code (`reference`, `cards`), and the
notebooks as they ran just now. So whatever builds sites from Markdown can take the folder.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.docs import notebooks, reference

ROOT = Path(__file__).parents[2]
LAID = ROOT / "build" / "docs"
SITE = ROOT / "site"
PAGES = {
    "../README.md": "index.md",
    "../SECURITY.md": "security.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
    "../examples": "examples.md",
}
"""Links that work where the repository is read, and the pages that stand for them in the site."""


def led(text: str) -> str:
    """``text`` with its links to files that are pages under another name led there.

    >>> led("[a](../examples/own_module.py), [b](notebooks/plan_and_split.ipynb)")
    '[a](examples.md), [b](notebooks/plan_and_split.md)'
    """
    for outside, page in PAGES.items():
        text = re.sub(rf"\]\({re.escape(outside)}[^)]*\)", f"]({page})", text)
    return re.sub(r"\]\(notebooks/([a-z_]+)\.ipynb\)", r"](notebooks/\1.md)", text)


def lay_out() -> None:
    """Put every page into `LAID`, anew."""
    shutil.rmtree(LAID, ignore_errors=True)
    shutil.copytree(ROOT / "docs", LAID, ignore=shutil.ignore_patterns("*.ipynb"))
    for page in LAID.rglob("*.md"):
        page.write_text(led(page.read_text()))
    for place, text in reference.pages().items():
        put(place, text.encode())
    for path in notebooks.NOTEBOOKS:
        print(f"running {path.name}", flush=True)
        text = notebooks.page(notebooks.run(path), path.stem, put)
        put(f"notebooks/{path.stem}.md", text.encode())


def put(place: str, content: bytes) -> None:
    """Write one file of the layout."""
    file = LAID / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def main() -> int:
    """Lay out, build; with ``serve``, show the site on this machine until it is interrupted."""
    lay_out()
    # Both want to tell what mkdocs.yml says of their future already.
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--clean"]
    done = subprocess.run(build, cwd=ROOT, env=os.environ | quiet)
    if done.returncode or sys.argv[1:] != ["serve"]:
        return done.returncode
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/ until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
