"""State of asyncio that has no public API. Only ``running_loop`` and ``ready_queue`` change any of it.

* :mod:`private_api`: asyncio's private names: what a loop at rest has to do, what a task waits for.
* :mod:`running_loop`: which loop a thread counts as running, and exchanging it.
* :mod:`ready_queue`: the callbacks that wait for their turn, and which goes first.
* :mod:`stacks`: the stack of another thread, and the variables of its functions.
* :mod:`running_callback`: which callback a loop is in, and for how long.
* :mod:`loop_class`: the class of the notebook's loop, which reports changes of its state.
* :mod:`frames`: whose code a frame runs: the user's, asyncio's or ours; where an interrupt may be raised.
* :mod:`task_state`: the state of a task, whatever its class raises.
* :mod:`wait_graph`: what a task awaits, and which tasks that depends on.
* :mod:`task_origin`: what has started a task.
* :mod:`exceptions`: the attributes of an exception, without running code of its class.
* :mod:`monitoring_tool`: the tool id of ``sys.monitoring``, for those who need it.
"""
