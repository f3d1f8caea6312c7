"""The one tool id of ``sys.monitoring`` that this package takes: shared by all who need it, and only while they do.

Whoever has it sets local events on code that nobody else here watches, registers callbacks for events that nobody else
here registers, and takes both back before it gives the id back.
"""

from __future__ import annotations

import sys

__all__ = ["TOOL", "give_back", "is_ours", "take"]

TOOL = "ipyrunner"
# sys.monitoring has six tool ids; 0, 1 and 2 are spoken for (debugger, coverage, profiler), and users take 3 and 4.
# 5 is for optimizers, of which there are none.
_TOOL_IDS = (5, 4, 3)

_taken: int | None = None
_users = 0

if sys.version_info >= (3, 12):

    def take() -> int | None:
        """Return our tool id, which is taken now if nobody has it yet; None if all that we may take are taken."""
        global _taken, _users
        if _taken is None or not is_ours(_taken):
            _users = 0
            _taken = next((i for i in _TOOL_IDS if sys.monitoring.get_tool(i) is None), None)
            if _taken is None:
                return None
            sys.monitoring.use_tool_id(_taken, TOOL)
        _users += 1
        return _taken

    def give_back(tool: int) -> None:
        """Free the id when the last of those who have taken it gives it back."""
        global _taken, _users
        if tool == _taken and is_ours(tool):
            _users -= 1
            if not _users:
                _taken = None
                sys.monitoring.free_tool_id(tool)

    def is_ours(tool: int) -> bool:
        """Return whether the id is still ours: somebody may have freed it, and have taken it."""
        return tool == _taken and sys.monitoring.get_tool(tool) == TOOL
