"""Run the notebooks of this folder from the first cell to the last, and keep what they show.

python examples/make.py           writes the outputs into the notebooks
python examples/make.py --check   runs them, and exits with 1 if the stored outputs are of other code
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
ENVIRONMENT = {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}  # bars leave traces that differ by run
VOLATILE = ("execution", "language_info", "widgets")


def executed(path: Path) -> Any:
    """Return a notebook with the outputs of a run in a kernel of its own; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    os.environ.update(ENVIRONMENT)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": FOLDER}}).execute()
    for holder in (notebook, *notebook.cells):
        for name in VOLATILE:
            holder.metadata.pop(name, None)
    return notebook


def shown(notebook: Any) -> list[list[str]]:
    """Return what each code cell shows as text, without its numbers: they may differ by a processor's last bits."""
    texts = []
    for cell in notebook.cells:
        outputs = [each for each in cell.get("outputs", []) if each.output_type != "error"]
        plain = [each.get("text") or each.data.get("text/plain", "") for each in outputs]
        texts.append([re.sub(r"[-+]?\d[\d.e+-]*", "#", re.sub(r"\s+", " ", text)) for text in plain])
    return texts


def main() -> int:
    """Write or check all notebooks; returns the exit code."""
    stale = []
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = executed(path)
        if "--check" not in sys.argv:
            nbformat.write(notebook, path)
        elif shown(notebook) != shown(nbformat.read(path, as_version=4)):
            stale.append(path.name)
    if stale:
        print(f"outputs are of other code: {', '.join(stale)}; run python examples/make.py", file=sys.stderr)
    return len(stale) and 1


if __name__ == "__main__":
    sys.exit(main())
