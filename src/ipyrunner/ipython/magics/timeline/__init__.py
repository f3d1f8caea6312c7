"""Show a trace. Imported when a trace is first used; ``aio.tasks.trace`` records it.

* :mod:`cell_trace`: ``%%arun --trace``.
* :mod:`trace`: ``ipyrunner.trace()``: begin, end, show, write.
* :mod:`rows`: the session as rows of segments: waiting, ready, running.
* :mod:`words`: durations, places and actors in words.
* :mod:`summary`: a trace in one line.
* :mod:`picture`: the rows as an SVG.
* :mod:`chrome_trace`: the rows as JSON that Perfetto and chrome://tracing open.
"""
