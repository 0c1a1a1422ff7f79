"""The notebook runs as it stands."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "fuse.ipynb"


# The kernel's client leaves its sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_notebook(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAFT_URL", server)
    notebook = nbformat.reads(NOTEBOOK.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs stay out of the repository"
    done = nbclient.NotebookClient(notebook, timeout=60).execute()
    table, last = (str(done.cells[at]["outputs"]) for at in (-4, -2))
    assert "fused" in table
    accuracy = float(done.cells[-2]["outputs"][0]["data"]["text/plain"])
    assert accuracy > 0.8, last
