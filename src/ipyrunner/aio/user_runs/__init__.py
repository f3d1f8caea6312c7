"""Runs that the user's code begins by the loop's own methods.

* :mod:`plain_runs`: ``loop.run_until_complete`` in a cell without ``await``.
* :mod:`nested_runs`: a loop that runs inside itself, opt-in; patches asyncio.
"""
