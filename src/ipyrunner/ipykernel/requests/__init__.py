"""The messages that the kernel handles.

* :mod:`request_sigint`: SIGINT while the kernel handles a request.
* :mod:`request_status`: the request that the kernel handles: its sender and its status.
* :mod:`concurrent_requests`: completions, inspections and the like, and cells, while a cell awaits.
* :mod:`interrupt_requests`: an interrupt by message, of one cell.
* :mod:`cell_record`: what is known of one cell, found by its Context.
* :mod:`cell_count`: the numbers of cells.
* :mod:`cell_replies`: the reply to a cell, where several run.
"""
