"""What is particular about some cells, and what is said of them.

* :mod:`first_cell`: what follows ``%load_ext ipyrunner`` in its cell.
* :mod:`inner_cells`: cells that code in the notebook's loop awaits.
* :mod:`cancelled_scopes`: a scope that one cell has entered, and that cancels later ones.
* :mod:`portals`: wait in code that is not async.
* :mod:`mistake_notes`: what a mistake with event loops is, and what to write.
* :mod:`deadlock_notes`: who waits for whom in a circle of tasks.
* :mod:`unawaited`: calls of coroutine functions that nobody awaits.
"""
