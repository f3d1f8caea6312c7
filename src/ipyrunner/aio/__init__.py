"""asyncio alone: nothing in this package has heard of IPython.

Read in this order:

* :mod:`running`: which loop a thread counts as running, and exchanging it.
* :mod:`closing`: cancel what is left, finalize, close.
* :mod:`runner`: ``Runner`` and ``run``, asyncio's own as of Python 3.14.
* :mod:`lending`: ``asyncio.create_task`` where no loop runs.
* :mod:`contexts`: carry ContextVars from one Context to another.
* :mod:`signalling`: SIGINT to the main thread, and who handles it outside of runs.
* :mod:`interrupt`: SIGINT for one main task: cancel, escalate, hand back.
* :mod:`wakeup`: wake a loop whenever a signal arrives.
* :mod:`peeking`: what a loop that is at rest has to do; asyncio's private names are here.
* :mod:`hosting`: one loop as the guest of another, on one thread.
* :mod:`holding`: hold SIGINT back for a few instructions.
* :mod:`exiting`: the end of the process, and child processes.
* :mod:`persistent`: a Runner that stays: one loop, one Context, runs that block or are awaited in a host.
"""
