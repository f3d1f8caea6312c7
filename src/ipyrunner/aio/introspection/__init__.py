"""What asyncio does not tell in public: looked up, and changed by nobody here but the running loop and the queue.

* :mod:`private_api`: asyncio's private names: what a loop at rest has to do, what a task waits for.
* :mod:`running_loop`: which loop a thread counts as running, and exchanging it.
* :mod:`ready_queue`: the callbacks that wait for their turn, and which goes first.
* :mod:`running_callback`: which callback a loop is in, and for how long.
* :mod:`loop_class`: the class of the notebook's loop, which tells when its state changes.
* :mod:`frames`: what a frame is: the user's code, asyncio's, or ours; where an interrupt may be raised.
* :mod:`task_state`: what a task is, whatever its class raises.
* :mod:`wait_graph`: what a task awaits, and which tasks that depends on.
* :mod:`entered_contexts`: which context managers a suspended coroutine is in.
* :mod:`task_origin`: what has started a task.
* :mod:`context_copy`: carry ContextVars from one Context to another.
* :mod:`exceptions`: what an exception is, past whatever its class makes of being asked.
"""
