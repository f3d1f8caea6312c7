"""What is ipykernel's: requests, signals, output, comms. It knows nothing of cells and magics.

* :mod:`kernel_loop`: the event loop of the kernel.
* :mod:`request_sigint`: SIGINT while the kernel handles a request.
* :mod:`sigterm`: SIGTERM as a clean end, and what keeps a kernel from it.
* :mod:`output_routing`: ipykernel 6: output goes to the cell that started the task.
* :mod:`late_output`: what comes after its cell, where nobody watches.
* :mod:`contained_calls`: calls of user code by the kernel, whatever that raises.
* :mod:`request_status`: the request that the kernel handles: whom it answers, its status.
* :mod:`concurrent_requests`: completions, inspections and the like, while a cell awaits.
* :mod:`comms`: the callbacks of widgets, on the main thread.
* :mod:`widget_events`: await what happens to a widget.
* :mod:`gui_loops`: ``%gui tk`` and ``%gui qt``.
"""
