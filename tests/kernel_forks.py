"""Kernels without the half second that imports take: each is forked from a process that has imported ipykernel.

What is forked runs ``python -m ipykernel_launcher`` from its first line: with arguments, an environment, a session and a
log of its own, and with no thread, no loop, no socket and nothing of ours from where it comes. Its modules alone were
imported before. On Linux; elsewhere, and where the environment is for Python itself, kernels start as front ends do it.
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
from importlib.metadata import EntryPoint
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

# What every kernel imports when it starts.
MODULES = [
    "ipykernel.kernelapp",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "sqlite3",
    "tornado.platform.asyncio",
]
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
        python, dash_m, module, *arguments = cmd
        server, env = Server.instance(), kwargs["env"]
        if (python, dash_m) != (sys.executable, "-m") or for_python(env) != server.for_python:
            return await super().launch_kernel(cmd, **kwargs)
        cwd = str(kwargs.get("cwd") or os.getcwd())
        self.process = server.fork({"module": module, "argv": arguments, "env": env, "cwd": cwd}, kwargs["stderr"])
        self.pid = self.pgid = self.process.pid
        self.cwd = cwd
        return self.connection_info

    async def kill(self, restart: bool = False) -> None:
        """Kill it, and wait for its end: who asks again waits for a tenth of a second."""
        await super().kill(restart)
        if isinstance(self.process, Process):
            self.process.wait(DEADLINE)


def for_python(env: Any) -> dict[str, str]:
    """What the interpreter itself looks at."""
    return {name: value for name, value in env.items() if name.startswith("PYTHON")}


class Process:
    """A kernel's process, as ``subprocess.Popen`` has it. The server tells its exit status by a pipe."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a kernel", timeout or 0)
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

    _instance: Server | None = None

    @classmethod
    def instance(cls) -> Server:
        cls._instance = cls._instance or cls()
        return cls._instance

    def __init__(self) -> None:
        self.for_python = for_python(os.environ)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
        theirs.close()

    def fork(self, request: dict[str, Any], stderr: Any) -> Process:
        ours, status = os.pipe()
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [stderr.fileno(), status])
        finally:
            os.close(status)
        return Process(int(self._channel.recv(100)), ours)


def serve(channel: socket.socket) -> dict[str, Any]:
    """Fork when asked to, and say how each has ended. It returns in what is forked, with what it has to do."""
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
                os.dup2(fds[0], 2)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return request
            os.close(fds[0])
            statuses[pid] = fds[1]
            channel.send(str(pid).encode())


def begin(request: dict[str, Any]) -> None:
    """Be as a process that ``python -m`` has started."""
    os.closerange(3, 1000)
    os.environ.clear()
    os.environ.update(request["env"], JPY_PARENT_PID=PARENT)
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["argv"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    del sys.path[0]
    os.environ["JPY_PARENT_PID"] = PARENT  # read when ipykernel is imported
    for module in MODULES:
        importlib.import_module(module)
    sys.path.insert(0, "")
    gc.collect()
    gc.freeze()  # a collection in a kernel need not look at the modules
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    begin(request)
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
