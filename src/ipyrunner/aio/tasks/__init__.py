"""The tasks of one loop, and what goes wrong in it.

* :mod:`registry`: which tasks there are, since when, and which have ended lately.
* :mod:`young_tasks`: tasks that have started a moment ago.
* :mod:`alarm`: a call on the loop after a while, without a timer of the loop.
* :mod:`safe_names`: names of tasks and exceptions, on one line.
* :mod:`task_records`: what is known of a task, and what is remembered of one that has ended.
* :mod:`unretrieved_failures`: failures of tasks whose exception nobody has retrieved.
* :mod:`exception_handler`: a loop's error reports, for whoever shows them.
* :mod:`task_scope`: the tasks that a block of code starts, as a group.
* :mod:`waits`: what tasks wait for, and whether it can ever come.
* :mod:`slow_callbacks`: what holds the loop for longer than a limit.
* :mod:`trace`: record what a loop does, step by step.
"""
