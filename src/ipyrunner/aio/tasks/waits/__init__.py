"""What the tasks of a loop wait for, and whether it can ever come.

* :mod:`deadlocks`: which tasks wait for each other in a circle, and who holds a lock.
* :mod:`entered_contexts`: which context managers a suspended coroutine is in.
* :mod:`certain_waits`: whether anything in a task's chain may end its wait.
"""
