"""The magics.

* :mod:`arun`: ``%arun``, ``%%arun`` and ``%arunner``.
* :mod:`background_cell`: ``%%arun --background``.
* :mod:`progress_bar`: ``%%arun --progress``.
* :mod:`profile`: ``%%arun --profile``.
* :mod:`timeline`: ``%%arun --trace`` and ``ipyrunner.trace()``.
* :mod:`arunner_status`: what ``%arunner`` shows.
* :mod:`atasks`: ``%atasks``.
* :mod:`tasks_table`: the table that ``%atasks`` and ``ipyrunner.tasks()`` show.
* :mod:`live`: ``%atasks --live``.
* :mod:`tasks_tree`: the tree that ``%atasks tree`` shows.
* :mod:`completion`: Tab completion in the lines of magics.
* :mod:`timeit`: ``%time``, ``%timeit`` and ``%prun`` of code that awaits.
"""
