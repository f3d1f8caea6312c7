"""What a loop does, step by step, while somebody wants to know: nothing here is imported before.

* :mod:`lanes`: what is kept of tasks: their lanes, the runs in these, places in code.
* :mod:`session`: one tracing session: its last runs, and totals of all.
* :mod:`tracer`: the tracer of one loop: it is told what begins and ends, and tells its sessions.
* :mod:`start`: begin and end a session.
* :mod:`probes`: what tells it: on asyncio's own loops each callback, on others (uvloop) each step of a coroutine.
* :mod:`code_events`: functions that are called when others begin and end, by ``sys.monitoring`` or a profile function.
* :mod:`descriptions`: what runs, and what is awaited, in words and places.
* :mod:`busy_places`: where a callback is that holds the loop.
"""
