"""Real clients whose scopes belong to a task: opened in one cell, used in others, closed in another."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import DEADLINE, Kernel, free_port

SERVER = Path(__file__).with_name("mcp_server.py")


@pytest.fixture
def port() -> Iterator[int]:
    """The port of an MCP server over HTTP, which is up."""
    number = free_port()
    process = subprocess.Popen([sys.executable, str(SERVER), str(number)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", number), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield number
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("transport", [pytest.param("stdio", marks=pytest.mark.slow), "http"])
def test_a_session_with_an_mcp_server(fresh: Kernel, transport: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("mcp")
    if transport == "stdio":
        # The kernel's stderr is no file, which the server's process needs.
        client = f"stdio_client(StdioServerParameters(command={sys.executable!r}, args=[{str(SERVER)!r}]), errlog=open('/dev/null', 'w'))"
    else:
        client = f"streamable_http_client('http://127.0.0.1:{request.getfixturevalue('port')}/mcp')"
    fresh.ok(
        "from contextlib import AsyncExitStack\nfrom mcp import ClientSession, StdioServerParameters, stdio_client\n"
        "from mcp.client.streamable_http import streamable_http_client"
    )
    fresh.ok(
        f"stack = AsyncExitStack()\nstreams = await stack.enter_async_context({client})\n"
        "session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))\nawait session.initialize();"
    )
    assert fresh.ok("[t.name for t in (await session.list_tools()).tools]").value == "['add']"
    fresh.interrupted(fresh.begin("print('go'); await asyncio.sleep(60)"), "go")
    assert fresh.ok("(await session.call_tool('add', {'a': 2, 'b': 3})).content[0].text").value == "'5'"
    closed = fresh.ok("await stack.aclose()")
    assert closed.stderr == ""
    fresh.expect_alive()
    assert fresh.ok("import ipyrunner; ipyrunner.tasks()").value == "no tasks"


def test_a_database_session_for_each_task(fresh: Kernel) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("aiosqlite")
    fresh.ok(
        "from sqlalchemy import text\nfrom sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine\n"
        "engine = create_async_engine('sqlite+aiosqlite://')\n"
        "Session = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)"
    )
    fresh.ok("first = Session(); await first.execute(text('create table t (n int)'));")
    fresh.ok("await Session().execute(text('insert into t values (1)'));")
    assert (
        fresh.ok("(await Session().execute(text('select n from t'))).scalar(), Session() is first").value == "(1, True)"
    )
    fresh.ok("await Session.remove(); await engine.dispose()")
    fresh.expect_alive()


@pytest.mark.parametrize("client", ["websockets", "httpx_ws"])
def test_a_web_socket_within_a_task_group_of_anyio(fresh: Kernel, client: str) -> None:
    # The client of httpx-ws has such a group of its own.
    for needed in ("httpx", "websockets"):
        pytest.importorskip(needed)
    pytest.importorskip(client)
    connect = {
        "websockets": "websockets.connect(f'ws://127.0.0.1:{port}')",
        "httpx_ws": "httpx_ws.aconnect_ws(f'http://127.0.0.1:{port}', client)",
    }[client]
    receive = {"websockets": "recv()", "httpx_ws": "receive_text()"}[client]
    send = {"websockets": "send", "httpx_ws": "send_text"}[client]
    fresh.ok(
        f"import anyio, httpx, websockets, {client}\nfrom contextlib import AsyncExitStack\n"
        "async def echo(socket):\n    async for message in socket: await socket.send(message.upper())\n"
        "server = await websockets.serve(echo, '127.0.0.1', 0)\nport = server.sockets[0].getsockname()[1]\nreceived = []"
    )
    fresh.ok(
        "stack = AsyncExitStack()\nclient = await stack.enter_async_context(httpx.AsyncClient())\n"
        "group = await stack.enter_async_context(anyio.create_task_group())\n"
        f"socket = await stack.enter_async_context({connect})\narrived = asyncio.Condition()\n"
        f"async def read():\n    while True:\n        received.append(await socket.{receive})\n"
        "        async with arrived: arrived.notify_all()\n"
        "async def wait_for(count):\n    async with arrived: await arrived.wait_for(lambda: len(received) >= count)\n"
        "group.start_soon(read)"
    )
    fresh.ok(f"await socket.{send}('one'); await wait_for(1)")
    fresh.interrupted(fresh.begin("print('go'); await asyncio.sleep(60)"), "go")
    assert fresh.ok(f"await socket.{send}('two'); await wait_for(2); received").value == "['ONE', 'TWO']"
    closed = fresh.ok("group.cancel_scope.cancel(); await stack.aclose(); server.close(); await server.wait_closed()")
    assert closed.stderr == ""
    fresh.expect_alive()
    assert fresh.ok("import ipyrunner; ipyrunner.tasks()").value == "no tasks"
