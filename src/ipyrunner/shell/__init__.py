"""IPython and ipykernel: where the notebook's runner meets its cells.

* :mod:`replacing`: replace an attribute of one object, and restore it.
* :mod:`reading`: what a cell's source says about how it has to run.
* :mod:`body`: compile and run code with top-level ``await``.
* :mod:`cells`: the two methods that every cell goes through.
* :mod:`magics`: ``%arun``, ``%%arun``, ``%arunner``.
* :mod:`tracebacks`: what the user sees of an exception.
* :mod:`routing`: ipykernel 6: output to the cell that started a task.
* :mod:`guarding`: SIGINT while the kernel handles a request.
* :mod:`terminating`: SIGTERM, and what keeps a kernel from its clean-up.
* :mod:`comms`: the callbacks of widgets, on the main thread also where a subshell gets them.
* :mod:`watching`: await what happens to a widget.
* :mod:`status`: what ``%arunner`` shows.
* :mod:`extension`: puts these in place and takes them back.
"""
