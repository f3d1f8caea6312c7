"""Runs that the user's code begins inside a cell.

* :mod:`plain_runs`: ``loop.run_until_complete`` in a cell without ``await``.
* :mod:`nested_runs`: a loop that runs inside itself, opt-in; patches asyncio.
* :mod:`context_copy`: carry what a run sets in a copy of a Context into the original.
"""
