"""The parts for ipykernel: requests, signals, output, comms. They know nothing of the source of cells, and of magics.

* :mod:`kernel_loop`: the event loop of the kernel.
* :mod:`thread_sockets`: what the kernel's own threads wait for.
* :mod:`requests`: the messages that the kernel handles: SIGINT meanwhile, and several messages at a time.
* :mod:`sigterm`: end a kernel cleanly on SIGTERM, also if it is stuck.
* :mod:`message_encoding`: messages with text that UTF-8 cannot encode.
* :mod:`output_routing`: ipykernel 6: output goes to the cell that started the task.
* :mod:`late_output`: keep output that comes after its cell, where nobody watches.
* :mod:`contained_calls`: the kernel's calls of user code, whatever exception that raises.
* :mod:`comms`: the callbacks of widgets, on the main thread.
* :mod:`widget_events`: await changes and events of a widget.
* :mod:`gui_loops`: ``%gui tk`` and ``%gui qt``.
"""
