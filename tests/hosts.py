"""A host with a guest, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ipyrunner.aio.loops.guest_leads import GuestLeads
from ipyrunner.aio.loops.host_and_guest import Hosting
from ipyrunner.aio.loops.slices import Slices
from ipyrunner.aio.sigint.interrupt import Interrupt

Escaped = list[BaseException]


def run_host(guest: Any, poll: bool, main: Callable[[Hosting], Any], **options: Any) -> Escaped:
    """Run *main* in a host whose guest is *guest*."""
    escaped: Escaped = []

    async def host_main() -> None:
        kind = Slices if poll else GuestLeads
        hosting = kind(asyncio.get_running_loop(), guest, escaped=escaped.append, **options)
        hosting.start()
        try:
            async with asyncio.timeout(30) as limit:
                await main(hosting)
            assert not limit.expired()  # hosting.wait() takes a cancellation for an interrupt
        finally:
            hosting.stop()

    asyncio.run(host_main())
    return escaped


async def wait(hosting: Hosting, coro: Any) -> Any:
    with Interrupt(hosting.guest, grace=1) as interrupt:
        task = hosting.guest.create_task(coro)
        interrupt.attach(task)
        await hosting.wait(task, interrupt)
    return task.result()
