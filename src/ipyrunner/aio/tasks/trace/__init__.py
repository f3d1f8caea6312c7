"""Record what a loop does, step by step. Nothing here is imported before the first recording.

* :mod:`lanes`: what is kept: lanes of tasks, runs of callbacks, places in code.
* :mod:`session`: one tracing session: the last runs, and totals of all.
* :mod:`tracer`: the tracer of one loop, which is told what begins and ends.
* :mod:`start`: begin and end a session.
* :mod:`probes`: tell the tracer of each callback on asyncio's loops, of each step of a coroutine on others (uvloop).
* :mod:`code_events`: call functions when others begin and end, by ``sys.monitoring`` or a profile function.
* :mod:`descriptions`: names of callbacks, and places where tasks wait.
* :mod:`busy_places`: where a callback is that holds the loop.
"""
