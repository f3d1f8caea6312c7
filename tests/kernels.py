"""A real kernel, driven the way a front end drives it."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ipykernel
import IPython
import zmq
from jupyter_client.manager import KernelManager

from kernel_forks import use_forks

DEADLINE = 60.0
# Whether cells can run side by side.
CONCURRENT = ipykernel.version_info >= (7,) and IPython.version_info >= (9, 8)
# A process that starts imports a thousand modules.
START_DEADLINE = 100.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Cell:
    """What came back for one request."""

    msg_id: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    reply: dict[str, Any] | None = None
    idle: bool = False
    statuses: list[str] = field(default_factory=list)

    def _texts(self, name: str) -> str:
        return "".join(
            m["content"]["text"] for m in self.messages if m["msg_type"] == "stream" and m["content"]["name"] == name
        )

    @property
    def stdout(self) -> str:
        return self._texts("stdout")

    @property
    def stderr(self) -> str:
        """Without colours."""
        return _ANSI.sub("", self._texts("stderr"))

    @property
    def value(self) -> str | None:
        """The plain text of Out[n]."""
        for m in self.messages:
            if m["msg_type"] == "execute_result":
                return str(m["content"]["data"]["text/plain"])
        return None

    @property
    def ename(self) -> str | None:
        """The exception's name: the same in the reply and in the cell's output."""
        names = {m["content"]["ename"] for m in self.messages if m["msg_type"] == "error"}
        assert self.reply is not None
        if self.reply["status"] == "error":
            names.add(self.reply["ename"])
        assert len(names) <= 1, names
        return names.pop() if names else None

    @property
    def traceback(self) -> str:
        """The traceback in the output, without colours."""
        lines = [line for m in self.messages if m["msg_type"] == "error" for line in m["content"]["traceback"]]
        return _ANSI.sub("", "\n".join(lines))


class Kernel:
    """One kernel and one client. Every wait has a deadline."""

    def __init__(self, manager: KernelManager, log: Path) -> None:
        self.manager = manager
        # What the kernel's process writes to stderr: what a server would log.
        self.log = log
        self.client = manager.blocking_client()
        # A kernel that does not listen yet is tried again after 5 ms, and not after 100.
        self.client.context.setsockopt(zmq.RECONNECT_IVL, 5)
        self.client.start_channels()
        self._channels = zmq.Poller()
        for channel in self.client.iopub_channel, self.client.shell_channel, self.client.stdin_channel:
            self._channels.register(channel.socket, zmq.POLLIN)
        self._cells: dict[str, Cell] = {}
        # What the front end's debugger is told, which belongs to no cell.
        self.debug_events: list[dict[str, Any]] = []
        # What widgets send, whichever cell they belong to.
        self.comm_messages: list[dict[str, Any]] = []
        # Seconds after which a condition that no message brings about is looked at again.
        self.poll = 0.02
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        """Wait until it answers, and is heard on both channels. Without jupyter_client's own waits: 0.2 s at least."""
        deadline = time.monotonic() + START_DEADLINE
        while True:
            asked = self.track(self.client.session.msg("kernel_info_request"))
            while asked.reply is None:
                self._receive(0.1)
                if not self.manager.is_alive():
                    raise RuntimeError(f"the kernel has ended:\n{self.log.read_text(errors='replace')}")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the kernel did not answer in {START_DEADLINE} s")
            # What it has published before it knew of this client is lost: then it is asked again.
            heard = time.monotonic() + 0.2
            while not asked.idle and time.monotonic() < heard:
                self._receive(0.02)
            if asked.idle:
                return

    def begin(self, code: str, **options: Any) -> Cell:
        """Send a cell and do not wait for it.

        After an error the kernel aborts what comes within the next moment; front ends send such cells again.
        """
        msg_id = self.client.execute(code, **{"stop_on_error": False, **options})
        cell = self._cells[msg_id] = Cell(msg_id)
        return cell

    def finish(self, cell: Cell, timeout: float = DEADLINE) -> Cell:
        """Wait until the reply and the idle status of the cell are there."""
        self._pump(lambda: cell.reply is not None and cell.idle, timeout, lambda: f"cell to end; it gave {cell}")
        return cell

    def run(self, code: str, timeout: float = DEADLINE, **options: Any) -> Cell:
        """Run a cell to its end, whatever that is."""
        return self.finish(self.begin(code, **options), timeout)

    def ok(self, code: str, timeout: float = DEADLINE) -> Cell:
        """Run a cell that must not fail."""
        cell = self.run(code, timeout)
        assert cell.ename is None, cell.traceback
        assert cell.reply is not None
        assert cell.reply["status"] == "ok", cell
        return cell

    def look(self, seconds: float) -> None:
        """Take in what arrives within so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._receive(left)

    def forget(self) -> None:
        """Let go of the cells so far."""
        self._cells.clear()

    def wait_for(self, cell: Cell, text: str, timeout: float = DEADLINE) -> None:
        """Wait until the cell has printed *text*; it may have ended long ago."""
        self._pump(lambda: text in cell.stdout, timeout, lambda: f"{text!r} in {cell.stdout!r}")

    def wait_until(self, condition: Callable[[], bool], timeout: float = DEADLINE) -> None:
        """Take in what arrives until the condition holds."""
        self._pump(condition, timeout, lambda: "a condition")

    def wait_for_message(self, cell: Cell, msg_type: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait for the first message of this type that the cell has caused."""
        self._pump(lambda: any(m["msg_type"] == msg_type for m in cell.messages), timeout, lambda: msg_type)
        return next(m for m in cell.messages if m["msg_type"] == msg_type)

    def wait_for_debug_event(self, name: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait for the next event of the front end's debugger with this name; forget those before it."""

        def found() -> int | None:
            return next((i for i, event in enumerate(self.debug_events) if event["event"] == name), None)

        self._pump(lambda: found() is not None, timeout, lambda: f"debugger's event {name!r}: {self.debug_events}")
        event = self.debug_events[found() or 0]
        del self.debug_events[: (found() or 0) + 1]
        return event

    def wait_for_question(self, cell: Cell, prompt: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait until the cell asks for input with this prompt, which no call before has waited for; return the request."""

        def asked() -> dict[str, Any] | None:
            questions = (m for m in cell.messages if m["msg_type"] == "input_request")
            return next((m for m in questions if prompt in m["content"]["prompt"]), None)

        self._pump(asked, timeout, lambda: f"{prompt!r} to be asked for by {cell}")
        question = asked()
        assert question is not None
        cell.messages.remove(question)
        return question

    def answer(self, text: str, to: dict[str, Any] | None = None) -> None:
        """Answer a question; *to* says which one, as JupyterLab does and jupyter_client does not."""
        self.client.stdin_channel.send(self.client.session.msg("input_reply", {"value": text}, parent=to))

    def chat(self, cell: Cell, prompt: str, text: str, expected: str = "") -> str:
        """Answer the cell's next question with this prompt; return what it prints then, once *expected* is in it."""
        self.wait_for_question(cell, prompt)
        before = len(cell.stdout)
        self.answer(text)
        printed = lambda: _ANSI.sub("", cell.stdout[before:])  # noqa: E731
        self._pump(lambda: expected in printed(), DEADLINE, lambda: f"{expected!r} in {printed()!r}")
        return printed()

    def interrupt(self) -> None:
        """Press the interrupt button. By message: until the kernel has answered."""
        if self.manager.kernel_spec.interrupt_mode == "message":
            self.client.control_channel.send(self.client.session.msg("interrupt_request"))
            assert self.client.get_control_msg(timeout=DEADLINE)["msg_type"] == "interrupt_reply"
        else:
            self.manager.interrupt_kernel()

    def interrupted(self, cell: Cell, marker: str, timeout: float = DEADLINE) -> None:
        """Wait for the cell's marker, press, wait for its end, which is to come in *timeout* seconds."""
        self.wait_for(cell, marker)
        self.interrupt()
        self.finish(cell, timeout)

    def settled(self) -> Kernel:
        """Before tests share it: let no collection, and each %reset is two, look at what is there already."""
        self.ok("import gc; gc.collect(); gc.freeze()")
        return self

    def renewed(self, code: str = "") -> Kernel:
        """Between tests that share it: without variables, with a new loop and Context. One cell, since each takes its time."""
        self.ok(f"%reset -f\n%arunner restart{BEFORE}{code}")
        return self

    def expect_alive(self) -> None:
        """After an interrupt: the next cell runs, on the same loop, with the variables of :data:`BEFORE`."""
        after = self.ok(
            "import asyncio; await asyncio.sleep(0.01); print(kept, id(asyncio.get_running_loop()) == loop_id)"
        )
        assert after.stdout == "kept True\n"
        assert self.ok("print(kept, id(asyncio.get_event_loop()) == loop_id)").stdout == "kept True\n"

    def send_comm(self, msg_type: str, content: dict[str, Any], *, subshell: str | None = None) -> Cell:
        """Send a comm message, as a widget does."""
        message = self.client.session.msg(msg_type, content)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        return self.track(message)

    def create_subshell(self) -> str:
        """Make a subshell, as JupyterLab does for the messages of widgets; return its id."""
        self.client.control_channel.send(self.client.session.msg("create_subshell_request"))
        reply = self.client.get_control_msg(timeout=DEADLINE)
        assert reply["msg_type"] == "create_subshell_reply"
        return str(reply["content"]["subshell_id"])

    def finish_comm(self, message: Cell, timeout: float = DEADLINE) -> None:
        """Wait until a comm message, which has no reply, is handled."""
        self._pump(lambda: message.idle, timeout, lambda: f"comm message to be handled; it gave {message}")

    def track(self, request: dict[str, Any]) -> Cell:
        """Send a request of the caller's own and collect its output."""
        cell = self._cells[request["header"]["msg_id"]] = Cell(request["header"]["msg_id"])
        self.client.shell_channel.send(request)
        return cell

    def track_only(self, msg_id: str) -> Cell:
        """Collect the output of a request that was sent already."""
        cell = self._cells[msg_id] = Cell(msg_id)
        return cell

    def wait_for_exit(self) -> None:
        """Wait until the kernel's process has ended."""
        deadline = time.monotonic() + DEADLINE
        while self.manager.is_alive():
            if time.monotonic() > deadline:
                raise TimeoutError("the kernel did not end")
            self.look(0.02)

    def _pump(self, done: Any, timeout: float, what: Callable[[], str]) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout} s for {what()}")
            self._receive(self.poll)

    def _receive(self, timeout: float) -> None:
        """Take in what is there, or arrives first within so many seconds."""
        for channel, _ in self._channels.poll(timeout * 1000):
            _, parts = self.client.session.feed_identities(channel.recv_multipart())
            self._take_in(self.client.session.deserialize(parts))

    def _take_in(self, message: dict[str, Any]) -> None:
        if message["msg_type"] == "debug_event":
            self.debug_events.append(message["content"])
            return
        if message["msg_type"] == "comm_msg":
            self.comm_messages.append(message["content"])
        cell = self._cells.get(message["parent_header"].get("msg_id"))
        if cell is None:
            return
        if message["msg_type"].endswith("_reply"):
            cell.reply = message["content"]
        elif message["msg_type"] == "status":
            cell.statuses.append(message["content"]["execution_state"])
            cell.idle = "idle" in cell.statuses
        else:
            cell.messages.append(message)


BEFORE = """
import asyncio
kept = "kept"
loop_id = id(asyncio.get_event_loop())
"""


# For handlers of the user's that raise: whether the notebook's loop is at rest. Raised in the kernel's own code an exception
# ends the kernel, with or without the extension; in a loop's first and last steps it leaves the loop running for ever.
AT_REST = """
import selectors
def at_rest(frame, loop=asyncio.get_event_loop()):
    return loop.is_running() and (not hasattr(loop, "_selector") or frame.f_code.co_filename == selectors.__file__)
"""


RUNNER_KERNEL = "--IPKernelApp.kernel_class=ipyrunner.kernel.RunnerKernel"


def free_port() -> int:
    """Return a TCP port for the server of another process, which binds it later: nobody gets one below 32768 by chance."""
    while True:
        number = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", number))
            return number


def sockets(directory: Any) -> dict[str, str]:
    """Return the options of a KernelManager for sockets in *directory*: see the comment."""
    # Not by TCP: a port that is free when the manager looks may be another test's when the kernel binds it.
    return {} if os.name == "nt" else {"transport": "ipc", "ip": str(Path(directory) / "kernel")}


@contextmanager
def kernel(
    tmp_path: Any,
    *arguments: str,
    load: bool = True,
    env: dict[str, str] | None = None,
    by_message: bool = False,
    name: str = "python3",
    forked: bool = True,
) -> Iterator[Kernel]:
    """A fresh kernel with the extension loaded; *by_message* interrupts it by message; *name* is its kernelspec's.

    *forked*: faster, and no other for its cells; see kernel_forks.py.
    """
    manager = KernelManager(kernel_name=name, **sockets(tmp_path))
    if by_message:
        manager.kernel_spec.interrupt_mode = "message"
    if forked:
        use_forks(manager)
        # A transaction for each cell takes a fifth of the time of a short one, and waits for the disk.
        arguments = ("--HistoryManager.db_cache_size=1000", *arguments)
    log = Path(tmp_path) / "kernel.log"
    with log.open("wb") as stderr:
        manager.start_kernel(
            extra_arguments=[*arguments], env={**os.environ, "IPYTHONDIR": str(tmp_path), **(env or {})}, stderr=stderr
        )
        started = None
        try:
            started = Kernel(manager, log)
            if load and RUNNER_KERNEL not in (*manager.kernel_spec.argv, *arguments):
                started.ok("%load_ext ipyrunner")
            if load:
                started.ok(BEFORE)
            yield started
        finally:
            if started is not None:
                started.client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
