"""Execute a notebook on a real kernel and print, cell by cell, what came out.

Output is shown when it arrives, under the cell that it belongs to: a background task reports from the cell that
started it, long after that cell has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def text_of(message: dict[str, Any]) -> str | None:
    """Return what a message shows, or None if it shows nothing."""
    content = message["content"]
    if message["msg_type"] == "stream":
        return str(content["text"])
    if message["msg_type"] in ("execute_result", "display_data"):
        return str(content["data"].get("text/plain", ""))
    if message["msg_type"] == "error":
        return ANSI.sub("", "\n".join(content["traceback"]))
    return None


class Run:
    """One execution of a notebook."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # By TCP, which Windows needs, ipykernel warns that others on the machine can listen.
        sockets = {} if os.name == "nt" else {"transport": "ipc", "ip": str(Path(self._directory.name) / "kernel")}
        self._manager = KernelManager(kernel_name="python3", **sockets)
        self._manager.start_kernel()
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._numbers: dict[str, int] = {}
        self._shown = 0
        try:
            self._client.wait_for_ready(timeout=60)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._client.stop_channels()
        # Asks the kernel to end, and waits. By a second request, to a loop that is closing, the kernel is warned.
        self._manager.shutdown_kernel()
        self._manager.cleanup_resources()
        self._directory.cleanup()

    def markdown(self, source: str) -> None:
        print(f"\n\033[1m{source}\033[0m" if sys.stdout.isatty() else f"\n{source}")

    def code(self, number: int, source: str) -> bool:
        """Run a cell; return whether it ended without an exception."""
        print(f"\nIn [{number}]:")
        print("\n".join(f"    {line}" for line in source.splitlines()), flush=True)
        # An error that is expected must not abort the next cell; one that is not ends the run here.
        msg_id = self._client.execute(source, stop_on_error=False)
        self._numbers[msg_id] = self._shown = number
        while True:
            message = self._client.get_iopub_msg(timeout=self._timeout)
            self._show(message)
            mine = message["parent_header"].get("msg_id") == msg_id
            if mine and message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while True:
            reply = self._client.get_shell_msg(timeout=self._timeout)
            if reply["parent_header"].get("msg_id") == msg_id:
                return bool(reply["content"]["status"] == "ok")

    def _show(self, message: dict[str, Any]) -> None:
        number, text = self._numbers.get(message["parent_header"].get("msg_id")), text_of(message)
        if number is None or text is None:
            return
        label = f"Out [{number}]:" if number == self._shown else f"Out [{number}], while cell {self._shown} runs:"
        print(label)
        print("\n".join(f"    {line}" for line in text.rstrip("\n").splitlines()), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a cell may be silent (default: 60)")
    parser.add_argument("--next", metavar="TEXT", help="printed when all went well")
    options = parser.parse_args()
    cells = json.loads(options.notebook.read_text())["cells"]
    run = Run(options.timeout)
    number = 0
    try:
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                run.markdown(source)
                continue
            number += 1
            expected = "raises-exception" in cell["metadata"].get("tags", [])
            if run.code(number, source) is expected:
                print(f"\ncell {number} {'should have failed, and did not' if expected else 'failed'}", file=sys.stderr)
                return 1
    finally:
        run.close()
    print(f"\nAll {number} cells of {options.notebook.name} ran as they should.")
    if options.next:
        print(f"\n{options.next}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
