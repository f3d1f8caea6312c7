"""Count the bytecode instructions that an empty cell takes, in a kernel with ipyrunner and in the stock kernel.

``python benchmarks/bytecode.py`` prints them, and the functions with the largest differences. A busy machine hardly
changes them. Those of all threads; Python 3.12 or later.
"""

from __future__ import annotations

import ast
import platform
from collections import Counter
from importlib.metadata import version

from contestants import Contestants, Kernel

# How many cells are counted, and how many functions are printed.
CELLS, FUNCTIONS = 10, 25
CODES = {"await": "await asyncio.sleep(0)", "plain": "1"}
COUNT = """
import collections, sys
count = collections.Counter()
def on_instruction(code, offset):
    count[code.co_filename.rsplit("/", 1)[-1] + " " + code.co_qualname] += 1
monitoring = sys.monitoring
monitoring.use_tool_id(4, "count")
monitoring.register_callback(4, monitoring.events.INSTRUCTION, on_instruction)
"""


def counted(k: Kernel, code: str, cells: int) -> Counter[str]:
    """Return how many instructions of each function *cells* cells of *code* take, and the cells before and after."""
    k.ok("count.clear(); monitoring.set_events(4, monitoring.events.INSTRUCTION)")
    for _ in range(cells):
        k.ok(code)
    k.ok("monitoring.set_events(4, 0)")
    return Counter(ast.literal_eval(k.ok("print(dict(count))").stdout))


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ipython", "ipykernel"))
    print(f"python {platform.python_version()}, {versions}")
    with Contestants() as c:
        kernels = {"ipyrunner": c.kernel(), "stock": c.kernel(load=False)}
        for k in kernels.values():
            k.ok(COUNT)
        for name, code in CODES.items():
            found: dict[str, Counter[str]] = {}
            for which, k in kernels.items():
                for _ in range(3):
                    k.ok(code)
                rest = counted(k, code, 0)
                found[which] = counted(k, code, CELLS)
                found[which].subtract(rest)
            ours, stock = (each.total() / CELLS for each in found.values())
            print(
                f"\nempty {name} cell: {ours:,.0f} instructions, in the stock kernel {stock:,.0f}: {ours / stock:.2f}"
            )
            more = found["ipyrunner"].copy()
            more.subtract(found["stock"])
            for function, number in more.most_common(FUNCTIONS):
                print(f"{number / CELLS:8,.0f} {function}")


if __name__ == "__main__":
    main()
