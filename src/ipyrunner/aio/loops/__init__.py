"""Two loops on one thread; starting tasks while no loop runs; closing a loop.

* :mod:`host_and_guest`: run a loop (the guest) inside another one (the host), by turns.
* :mod:`guest_leads`: it runs whenever the host would sleep.
* :mod:`host_leads`: the same where the host has to keep the thread.
* :mod:`slices`: the same where no fd can be watched.
* :mod:`turns_choice`: which of these fits two loops.
* :mod:`blocking_run`: run a loop until something in it has ended.
* :mod:`doorbell`: notice what is scheduled on a loop at rest.
* :mod:`other_threads`: let other threads run beside a loop that never rests, when a request has come.
* :mod:`switch_interval`: the same at other times.
* :mod:`create_task`: ``asyncio.create_task`` while no loop runs.
* :mod:`threadsafe_call`: run a call on a loop's thread, or withdraw it if the loop does not get to it.
* :mod:`shutdown`: cancel what is left, report its errors, finalize, close.
"""
