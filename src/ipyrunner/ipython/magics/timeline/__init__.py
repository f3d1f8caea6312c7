"""A trace as people see it, imported when somebody asks for one. What is recorded, ``aio.tasks.trace`` knows.

* :mod:`cell_trace`: ``%%arun --trace``.
* :mod:`trace`: ``ipyrunner.trace()``: begin, end, show, write.
* :mod:`rows`: what was recorded as rows of segments: waiting, ready, running.
* :mod:`words`: times, places and actors in words.
* :mod:`summary`: what can be said of a trace in one line.
* :mod:`picture`: the rows as an SVG.
* :mod:`chrome_trace`: the rows as JSON that Perfetto and chrome://tracing open.
"""
