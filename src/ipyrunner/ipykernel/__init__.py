"""What is ipykernel's: requests, signals, output, comms. It knows nothing of cells' sources and magics.

* :mod:`kernel_loop`: the event loop of the kernel.
* :mod:`requests`: the messages that the kernel handles: SIGINT meanwhile, and several at a time.
* :mod:`sigterm`: SIGTERM as a clean end, and what keeps a kernel from it.
* :mod:`output_routing`: ipykernel 6: output goes to the cell that started the task.
* :mod:`late_output`: what comes after its cell, where nobody watches.
* :mod:`contained_calls`: calls of user code by the kernel, whatever that raises.
* :mod:`comms`: the callbacks of widgets, on the main thread.
* :mod:`widget_events`: await what happens to a widget.
* :mod:`gui_loops`: ``%gui tk`` and ``%gui qt``.
"""
