"""SIGINT for one main task of a loop that stays.

* :mod:`interrupt`: cancel, ask whether the loop lives, force what does not yield.
* :mod:`inner_runs`: what runs the loop inside itself, and is in the way.
* :mod:`peer`: the same for runs beside it, which have no handler of their own.
* :mod:`main_task`: whose cancellation it was, and that an interrupted task goes first.
* :mod:`forced_interrupt`: a KeyboardInterrupt that was forced, and what into.
* :mod:`interruption`: the KeyboardInterrupt that a run ends with, and what was seen before it.
* :mod:`dropped_exceptions`: a KeyboardInterrupt where Python drops exceptions, raised again.
* :mod:`escaped_exceptions`: what comes out of ``run_forever``, and who is told.
* :mod:`watchdog_thread`: what signal handlers need to have done later.
* :mod:`wakeup_fd`: wake a loop whenever a signal arrives.
* :mod:`defer_sigint`: hold SIGINT back for a few instructions.
* :mod:`handlers`: who handles SIGINT outside of runs, and how it is sent.
"""
