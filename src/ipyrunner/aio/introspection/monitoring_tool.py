"""The one tool id of ``sys.monitoring`` that this package takes, shared by its users, and only while they need it.

Each user sets local events on code that no other user watches, registers callbacks for events that no other user
registers, and removes both before it gives the id back.
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
        """Return our tool id, which is taken now if no user has it yet; None if none is free."""
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
        """Free the id when its last user gives it back."""
        global _taken, _users
        if tool == _taken and is_ours(tool):
            _users -= 1
            if not _users:
                _taken = None
                sys.monitoring.free_tool_id(tool)

    def is_ours(tool: int) -> bool:
        """Return whether the id is still ours: others may have freed it, or have taken it after that."""
        return tool == _taken and sys.monitoring.get_tool(tool) == TOOL
