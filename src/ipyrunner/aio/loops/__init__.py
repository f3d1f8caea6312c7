"""Two loops on one thread, and the beginning and the end of one.

* :mod:`guest_leads`: a loop inside another, which rests meanwhile.
* :mod:`host_leads`: the same where the outer one has to keep the thread.
* :mod:`blocking_run`: run a loop until something in it has ended.
* :mod:`doorbell`: learn of what is scheduled on a loop at rest.
* :mod:`create_task`: ``asyncio.create_task`` where no loop runs.
* :mod:`threadsafe_call`: give a call to a loop's thread, and take it back if it does not come to it.
* :mod:`shutdown`: cancel what is left, report its errors, finalize, close.
"""
