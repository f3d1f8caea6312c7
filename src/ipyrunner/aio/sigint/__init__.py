"""SIGINT for one main task of a loop that stays.

* :mod:`interrupt`: cancel, ask whether the loop responds, interrupt by force what does not yield.
* :mod:`inner_runs`: end nested runs of the loop that are in the way.
* :mod:`peer`: the same for concurrent runs, which have no handler of their own.
* :mod:`main_task`: who has cancelled the main task; an interrupted task goes first.
* :mod:`forced_interrupt`: a forced KeyboardInterrupt, and the code that it was raised in.
* :mod:`interruption`: the KeyboardInterrupt that a run ends with, and what was seen before it.
* :mod:`dropped_exceptions`: raise a KeyboardInterrupt again that Python has dropped.
* :mod:`escaped_exceptions`: exceptions that come out of ``run_forever``, and who gets them.
* :mod:`watchdog_thread`: a thread that does later what a signal handler cannot do.
* :mod:`wakeup_fd`: wake a loop whenever a signal arrives.
* :mod:`defer_sigint`: hold SIGINT back for a few instructions.
* :mod:`handlers`: who handles SIGINT outside of runs, and how it is sent.
"""
