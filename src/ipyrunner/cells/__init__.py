"""Special kinds of cells, and notes that are shown with cells.

* :mod:`first_cell`: the statements after ``%load_ext ipyrunner`` in its cell.
* :mod:`inner_cells`: cells that code in the notebook's loop awaits.
* :mod:`interrupted_tasks`: the note on an interrupt that was raised in a background task.
* :mod:`cancelled_scopes`: notes on a scope that one cell has entered, and that cancels later cells.
* :mod:`portals`: wait in code that is not async.
* :mod:`mistake_notes`: notes on mistakes with event loops, and what to write instead.
* :mod:`deadlock_notes`: which task waits for which in a circle of tasks.
* :mod:`unawaited`: calls of coroutine functions that nobody awaits.
"""
