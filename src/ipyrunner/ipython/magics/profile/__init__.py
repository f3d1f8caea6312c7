"""``%%arun --profile``: where the time of a cell and of its tasks went.

* :mod:`cell_profile`: begins, ends and shows a profile.
* :mod:`samples`: which samples of the profiler belong to the cell.
"""
