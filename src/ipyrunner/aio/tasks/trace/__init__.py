"""What a loop does, step by step, while somebody wants to know: nothing here is imported before.

* :mod:`records`: what is kept: lanes of tasks, runs of callbacks, places in code.
* :mod:`recording`: what one who wants to know has got: the last runs, and totals of all.
* :mod:`recorder`: the recorder of one loop, which others tell what begins and ends.
* :mod:`start`: begin and end a recording.
* :mod:`callbacks`: what tells it on asyncio's own loops: each callback.
* :mod:`coroutines`: what tells it on other loops (uvloop): each step of a task's coroutine.
* :mod:`code_events`: functions that are called when others begin and end, by ``sys.monitoring`` or a profile function.
* :mod:`descriptions`: what runs, and what is awaited, in words and places.
* :mod:`busy_places`: where a callback is that holds the loop.
"""
