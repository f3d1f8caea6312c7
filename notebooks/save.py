"""Execute notebooks and save them with their outputs, as they are here: python notebooks/save.py NOTEBOOK..."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

# Where this machine keeps Python and its packages.
PATHS = re.compile(r"(?:~|/)[\w./~-]*?/(?=(?:lib/)?python3\.\d+/)")
# What differs each time: addresses, colours, all numbers and their units of time.
VARIES = re.compile(r"0x[0-9a-f]+|\x1b\[[0-9;]*m|[\d.]+(?: [nmµμ]?s\b)?|\s+")


def executed(path: Path) -> Any:
    """Return the notebook with the outputs of an execution."""
    document = nbformat.read(path, as_version=4)
    NotebookClient(document, timeout=60, kernel_name="python3", record_timing=False).execute()
    for output in outputs(document):
        if output["output_type"] == "error":
            output["traceback"] = [PATHS.sub(".../", line) for line in output["traceback"]]
        elif "text" in output:
            output["text"] = PATHS.sub(".../", output["text"])
    document.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipyrunner)", "language": "python", "name": "ipyrunner"},
        "language_info": {"name": "python"},
    }
    return document


def outputs(document: Any) -> list[Any]:
    """Return all outputs, in their order."""
    return [output for cell in document.cells for output in cell.get("outputs", [])]


def essence(document: Any) -> list[list[str]]:
    """Return what each cell results in. Not what it prints, which may come in another cell, nor what varies."""
    return [
        [VARIES.sub(" ", text_of(output)).strip() for output in cell.get("outputs", []) if "text" not in output]
        for cell in document.cells
    ]


def text_of(output: Any) -> str:
    """Return what a result is in text; of an error its name and message."""
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}"
    if "image/svg+xml" in output["data"]:
        return "a picture"  # of a trace: what is in it depends on the machine
    return str(output["data"].get("text/plain", ""))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        nbformat.write(executed(Path(name)), name)
