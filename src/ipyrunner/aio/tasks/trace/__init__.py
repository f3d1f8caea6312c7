"""Record what a loop does, step by step. Nothing here is imported before the first recording.

* :mod:`records`: what is kept: lanes of tasks, runs of callbacks, places in code.
* :mod:`recording`: one recording: the last runs, and totals of all.
* :mod:`recorder`: the recorder of one loop, which is told what begins and ends.
* :mod:`start`: begin and end a recording.
* :mod:`callbacks`: tells the recorder of each callback, on asyncio's own loops.
* :mod:`coroutines`: tells the recorder of each step of a task's coroutine, on other loops (uvloop).
* :mod:`code_events`: call functions when others begin and end, by ``sys.monitoring`` or a profile function.
* :mod:`descriptions`: names of callbacks, and places where tasks wait.
* :mod:`busy_places`: where a callback is that holds the loop.
"""
