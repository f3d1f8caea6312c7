"""Loops by name: asyncio's own, uvloop, and asyncio's own by turns as where there is no pollable fd."""

SETUPS = {
    "asyncio": "",
    "uvloop": "%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'\n",
    "turns": "%config NotebookRunner.poll = True\n",
}
