"""A handler of ``logging`` that writes to the cell whose code logs.

``logging.StreamHandler`` keeps the ``sys.stderr`` of when it was made. At the prompt of a terminal that is the
wrong one, and after ``%%capture`` it is one that nobody reads. In a kernel it also blocks the loop until each record
has been sent.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["LogHandler"]


class LogHandler(logging.Handler):
    """Write log records to the present ``sys.stderr``: ``logging.basicConfig(handlers=[ipyrunner.LogHandler()])``.

    What a task logs appears where its prints do: in the output of the cell that started it, in a terminal above the
    prompt. The handler needs neither IPython nor the extension.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; a kernel sends it together with printed text."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)
