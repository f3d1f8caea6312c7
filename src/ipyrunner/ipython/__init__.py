"""The parts for IPython: how a cell gets from its source to its result.

* :mod:`cell_kinds`: which cells need the loop, and which begin at once.
* :mod:`needs_loop`: whether a cell's source needs a running loop.
* :mod:`run_cell`: the two methods that every cell goes through.
* :mod:`arun_options`: the options of the magics, and those of ``%%arun``.
* :mod:`top_level_await`: compile and run code with top-level ``await``.
* :mod:`hook_errors`: hooks, transformers and user expressions, whatever exception they raise.
* :mod:`tracebacks`: what the user sees of an exception: their own lines, and notes on mistakes.
* :mod:`exception_groups`: show an exception as IPython does, and the exceptions in a group as well.
* :mod:`loop_reports`: show what has happened in the loop, in the output of the cell that it comes from.
* :mod:`input`: ``ipyrunner.input``.
* :mod:`debugger`: pdb and debugpy stop in the user's frames.
* :mod:`magics`: ``%arun``, ``%atasks``, ``%arunner``, and IPython's ``%time``, ``%timeit`` and ``%prun``.
"""
