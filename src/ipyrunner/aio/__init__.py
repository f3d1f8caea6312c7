"""asyncio alone: nothing in this package has heard of IPython.

Read in this order; each knows only what comes after it:

* :mod:`persistent_runner`: a Runner that stays: one loop, one Context, runs that block or are awaited in a host.
* :mod:`interrupts`: SIGINT for the runs of one loop.
* :mod:`main`: one task that awaits one coroutine after the other.
* :mod:`notices`: what a runner has to say, and others show.
* :mod:`nested_runs`: a loop that runs inside itself, opt-in; patches asyncio.
* :mod:`runner`: ``Runner`` and ``run``, asyncio's own as of Python 3.14.
* :mod:`loops`: one loop inside another, ``create_task`` where none runs, and the end of a loop.
* :mod:`tasks`: which tasks there are, what they have failed with, what they hold up.
* :mod:`sigint`: SIGINT for one main task: cancel, ask, force; hand back.
* :mod:`introspection`: what asyncio does not tell in public; its private names are here.
* :mod:`replacements`: replace an attribute of one object, and restore it as far as it is still ours.
* :mod:`exit_and_fork`: the end of the process, and forked children.
"""
