"""Which way of taking turns fits two loops."""

from __future__ import annotations

import asyncio
from typing import Any

from .guest_leads import GuestLeads
from .host_and_guest import Hosting
from .host_leads import HostLeads
from .slices import Slices

__all__ = ["hosting_of"]


def hosting_of(
    host: asyncio.AbstractEventLoop,
    guest: asyncio.AbstractEventLoop,
    *,
    host_leads: bool = False,
    poll: bool = False,
    **options: Any,
) -> Hosting:
    """Return what runs *guest* inside *host*, not started.

    *host_leads*: the host runs something else while it waits, see ``HostLeads``. *poll*: watch no fds, take turns in
    slices. The other options are Hosting's.
    """
    kind: type[Hosting] = Slices
    if host_leads:
        kind = HostLeads
    elif GuestLeads.is_possible(host, guest) and not poll:
        kind = GuestLeads
    return kind(host, guest, **options)
