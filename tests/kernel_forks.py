"""Kernels without the half second that imports take: each is forked from a process that has imported ipykernel.

What is forked runs ``python -m ipykernel_launcher`` from its first line: with arguments, an environment, a session and a
log of its own, and with no thread, no loop, no socket and nothing of ours from where it comes. Its modules alone were
imported before. On Linux; elsewhere, and where the environment is for Python itself, kernels start as front ends do it.
``python -m IPython`` in a terminal comes in the same way from another process, which has no module of ipykernel.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

# What all that run a module import when they start.
SHELL = [
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "sqlite3",
]
KERNEL, TERMINAL = "ipykernel_launcher", "IPython"
MODULES = {
    KERNEL: ["ipykernel.kernelapp", "ipykernel.debugger", "tornado.platform.asyncio", *SHELL],
    TERMINAL: ["IPython.terminal.ipapp", "prompt_toolkit.input.vt100", "pygments.lexers.python", *SHELL],
}
NAME = "forked"
PARENT = str(os.getpid())
# Seconds in which a kernel that was killed ends.
DEADLINE = 30.0


def use_forks(manager: Any) -> None:
    """Let this manager's kernels be forked, where that can be."""
    if sys.platform == "linux":
        KernelProvisionerFactory.instance().provisioners[NAME] = EntryPoint(
            NAME, f"{__name__}:Provisioner", KernelProvisionerFactory.GROUP_NAME
        )
        manager.kernel_spec.metadata = {
            **manager.kernel_spec.metadata,
            "kernel_provisioner": {"provisioner_name": NAME},
        }


class Provisioner(LocalProvisioner):
    """Starts kernels by the server, and looks after them as after any other process."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        python, *arguments = cmd
        cwd, env = str(kwargs.get("cwd") or os.getcwd()), kwargs["env"]
        forked = python == sys.executable and fork(KERNEL, arguments, env, cwd, kwargs["stderr"].fileno())
        if not forked:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = forked
        self.pid = self.pgid = self.process.pid
        self.cwd = cwd
        return self.connection_info

    async def kill(self, restart: bool = False) -> None:
        """Kill it, and wait for its end: who asks again waits for a tenth of a second."""
        await super().kill(restart)
        if isinstance(self.process, Process):
            self.process.wait(DEADLINE)


def fork(module: str, arguments: list[str], env: dict[str, str], cwd: str, fd: int) -> Process | None:
    """Run ``python -m module``, as *arguments* say, from where it was imported before; None: that cannot be.

    *fd* is a kernel's stderr, a terminal for what runs in one.
    """
    if sys.platform != "linux" or arguments[:2] != ["-m", module]:
        return None
    server = Server.instance(module, for_python(env))
    return server and server.fork({"argv": arguments[2:], "env": env, "cwd": cwd}, fd)


def for_python(env: Any) -> dict[str, str]:
    """What the interpreter itself looks at."""
    return {name: value for name, value in env.items() if name.startswith("PYTHON")}


class Process:
    """What was forked, as ``subprocess.Popen`` has it. The server tells its exit status by a pipe."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("what was forked", timeout or 0)
            self.returncode = int(os.read(self._status, 100) or -signal.SIGKILL)
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """The process that kernels come from. It ends with this one, and kernels end when they see it gone."""

    _instances: dict[str, Server] = {}

    @classmethod
    def instance(cls, module: str, environment: dict[str, str]) -> Server | None:
        """Return the one for *module*, if Python's own environment is that of the first who has asked for it."""
        if module not in cls._instances:
            cls._instances[module] = cls(module, environment)
        server = cls._instances[module]
        return server if server._for_python == environment else None

    def __init__(self, module: str, environment: dict[str, str]) -> None:
        self._for_python = environment
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {name: value for name, value in os.environ.items() if name not in for_python(os.environ)} | environment
        with ExitStack() as stack:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL}
            if module == TERMINAL:  # when it is imported it looks whether it is in one
                self._terminal, terminal = os.openpty()
                stack.callback(os.close, terminal)
                streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
            self._process = subprocess.Popen(
                [sys.executable, __file__, module, str(theirs.fileno())], env=env, pass_fds=[theirs.fileno()], **streams
            )
        theirs.close()

    def fork(self, request: dict[str, Any], fd: int) -> Process:
        ours, status = os.pipe()
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [fd, status])
        finally:
            os.close(status)
        return Process(int(self._channel.recv(100)), ours)


def serve(channel: socket.socket) -> tuple[dict[str, Any], int]:
    """Fork when asked to, and say how each has ended. It returns in what is forked, with what it has to do, and its fd."""
    wakeup, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 1000)
            while statuses:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                os.write(statuses[pid], str(os.waitstatus_to_exitcode(status)).encode())
                os.close(statuses.pop(pid))
        if channel in ready:
            message, fds, _, _ = socket.recv_fds(channel, 2**20, 2)
            if not message:
                os._exit(0)
            request: dict[str, Any] = json.loads(message)
            if (pid := os.fork()) == 0:
                os.setsid()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return request, fds[0]
            os.close(fds[0])
            statuses[pid] = fds[1]
            channel.send(str(pid).encode())


def begin(module: str, request: dict[str, Any], fd: int) -> None:
    """Be as a process that ``python -m`` has started."""
    os.environ.clear()
    os.environ.update(request["env"])
    if module == TERMINAL:
        for stream in range(3):
            os.dup2(fd, stream)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    else:
        os.dup2(fd, 2)
        os.environ["JPY_PARENT_PID"] = PARENT
    os.closerange(3, 1000)
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = [module, *request["argv"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    import fcntl
    import termios

    del sys.path[0]
    name = sys.argv[1]
    os.environ["JPY_PARENT_PID"] = PARENT  # read when ipykernel is imported
    for module in MODULES[name]:
        importlib.import_module(module)
    sys.path.insert(0, "")
    gc.collect()
    gc.freeze()  # a collection in a kernel need not look at the modules
    begin(name, *serve(socket.socket(fileno=int(sys.argv[2]))))
    runpy.run_module(name, run_name="__main__", alter_sys=True)
