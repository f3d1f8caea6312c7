"""A handler of ``logging`` that writes to the cell whose code logs.

``logging.StreamHandler`` keeps the ``sys.stderr`` of when it was made. At the prompt of a terminal that is the
wrong one, and after ``%%capture`` it is one that nobody reads. In a kernel it also waits until each record has been
sent, and so does the loop.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["LogHandler"]


class LogHandler(logging.Handler):
    """Write log records to ``sys.stderr`` as it is then: ``logging.basicConfig(handlers=[ipyrunner.LogHandler()])``.

    What a task logs appears where its prints do: in the output of the cell that started it, in a terminal above the
    prompt. It needs neither IPython nor the extension.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; it is sent when what is printed is."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)
