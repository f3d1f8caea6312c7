"""The kernel class for ipykernel, and its kernelspec. The extension does everything else.

* :mod:`runner_kernel`: ipykernel's kernel with the extension loaded.
* :mod:`kernelspec`: ``python -m ipyrunner install`` and ``uninstall``.

A kernelspec names the class by ``--IPKernelApp.kernel_class=ipyrunner.kernel.RunnerKernel``.
"""

from __future__ import annotations

from .runner_kernel import RunnerKernel

__all__ = ["RunnerKernel"]
