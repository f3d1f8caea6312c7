"""What is IPython's: the way of a cell from its source to its result.

* :mod:`cell_kinds`: which cells need the loop, and which begin at once.
* :mod:`needs_loop`: what a cell's source says about how it has to run.
* :mod:`run_cell`: the two methods that every cell goes through.
* :mod:`arun_options`: the options of the magics, and those of ``%%arun``.
* :mod:`top_level_await`: compile and run code with top-level ``await``.
* :mod:`hook_errors`: hooks, transformers and user expressions, whatever they raise.
* :mod:`tracebacks`: what the user sees of an exception: their own lines, and notes on mistakes.
* :mod:`exception_groups`: an exception as IPython shows it, groups with what is in them.
* :mod:`loop_reports`: what has happened in the loop, as output of the cell that it comes from.
* :mod:`input`: ``ipyrunner.input``.
* :mod:`debugger`: pdb and debugpy stop in the user's frames.
* :mod:`magics`: ``%arun``, ``%atasks``, ``%arunner``, and IPython's own that time.
"""
