"""asyncio only: nothing in this package knows IPython.

Read in this order; each knows only what comes after it:

* :mod:`persistent_runner`: a Runner that keeps one loop and one Context; its runs block or are awaited in a host loop.
* :mod:`user_runs`: what the user's code runs inside a cell, also nested.
* :mod:`interrupts`: SIGINT for the runs of one loop.
* :mod:`main`: one task that awaits one coroutine after the other.
* :mod:`notices`: what a runner reports, and other code shows.
* :mod:`runner`: ``Runner`` and ``run`` as in Python 3.14.
* :mod:`loops`: one loop inside another, ``create_task`` while no loop runs, and the end of a loop.
* :mod:`tasks`: which tasks there are, how they have failed, and what blocks the loop.
* :mod:`sigint`: SIGINT for one main task: cancel it, ask whether the loop responds, interrupt by force.
* :mod:`introspection`: state of asyncio that has no public API, read by private names.
* :mod:`replacements`: replace an attribute of one object, and restore it unless somebody has replaced it since.
* :mod:`exit_and_fork`: the end of the process, and forked children.
"""
