"""The notebooks are small, hold no outputs, and run from end to end."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
MOST_BYTES = 100_000
NEEDED = ("nbclient", "ipykernel", "matplotlib")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


def test_notebooks_are_small_and_hold_no_outputs():
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        assert path.stat().st_size < MOST_BYTES
        cells = json.loads(path.read_text())["cells"]
        assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.long
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (extra docs)")
@pytest.mark.filterwarnings("ignore")  # of the notebook's server, none of which is ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_end_to_end(path: Path, tmp_path: Path):
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(book, timeout=300, resources=place).execute()
    pictures = [
        output
        for cell in done.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 3
