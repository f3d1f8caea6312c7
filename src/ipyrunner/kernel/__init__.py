"""ipykernel: the kernel class. The extension does everything else.

A kernelspec names it by ``--IPKernelApp.kernel_class=ipyrunner.kernel.RunnerKernel``.
"""

from __future__ import annotations

from .runner_kernel import RunnerKernel

__all__ = ["RunnerKernel"]
