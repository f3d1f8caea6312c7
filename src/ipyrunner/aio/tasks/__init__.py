"""The tasks of one loop, and what goes wrong in it.

* :mod:`registry`: which tasks there are, since when, and which have ended lately.
* :mod:`young_tasks`: those that have started a moment ago.
* :mod:`safe_names`: how a task and an exception are called, on one line.
* :mod:`task_records`: what is known of a task, and what is remembered of one that has ended.
* :mod:`unretrieved_failures`: failures of tasks that nobody has asked for.
* :mod:`exception_handler`: what goes wrong in a loop, given to whoever shows it.
* :mod:`task_scope`: the tasks that a block of code starts, as a group.
* :mod:`deadlocks`: which tasks wait for each other in a circle, and who holds a lock.
* :mod:`entered_contexts`: which context managers a suspended coroutine is in.
* :mod:`certain_waits`: whether anything in its chain may end the wait of a task.
* :mod:`slow_callbacks`: what holds the loop for longer than a limit.
* :mod:`trace`: what a loop does, step by step, while somebody wants to know.
"""
