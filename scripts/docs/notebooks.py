"""Runs the notebooks and makes a page of each: what it says, its code, and what came of it.

A notebook that fails fails the build. mkdocs-jupyter would do it with nbconvert, jupytext and a
formula library from the network; of all that nothing is needed here.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
TIMEOUT_S = 300
Put = Callable[[str, bytes], None]


def run(path: Path) -> Any:
    """The notebook at ``path`` with the outputs of a fresh run, in a folder that is thrown away."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(book, timeout=TIMEOUT_S, resources={"metadata": {"path": folder}})
        return client.execute()


def page(book: Any, name: str, put: Put) -> str:
    """``book`` as Markdown; its pictures are ``put`` beside it as ``NAME-NUMBER.png`` or .svg."""
    parts: list[str] = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [part for each in cell.outputs if (part := _shown(each, name, put))]
    source = f"The notebook itself: `docs/notebooks/{name}.ipynb`; the outputs are of the build."
    return "\n\n".join([*parts, source, ""])


def _shown(output: Any, name: str, put: Put) -> str:
    """One output: text as a block, a picture as a file."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```" if output.name == "stdout" else ""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        return _picture(name, "svg", data["image/svg+xml"].encode(), put)
    if "image/png" in data:
        return _picture(name, "png", base64.b64decode(data["image/png"]), put)
    text = data.get("text/plain", "")
    return f"```text\n{text}\n```" if text else ""


def _picture(name: str, kind: str, content: bytes, put: Put) -> str:
    """Put a picture beside the page; the line that shows it."""
    file = f"{name}-{abs(hash(content)) % 10**8}.{kind}"
    put(f"notebooks/{file}", content)
    return f"![a plot that the code above draws]({file})"
