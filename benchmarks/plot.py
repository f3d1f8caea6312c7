"""Draw the shapes of a run: ``python benchmarks/plot.py bench.json bench.svg``."""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw(found: dict[str, Any], path: str) -> None:
    """Draw processor time as a multiple of a script's, one group of bars for each shape."""
    shapes = found["shapes"]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(shapes) + 1.2), layout="constrained")
    for i, (name, label) in enumerate(
        (("stock", "stock kernel"), ("cell", "ipyrunner, await"), ("plain", "ipyrunner, asyncio.run"))
    ):
        for n, results in enumerate(shapes.values()):
            ratio = statistics.median(a[0] / b[0] for a, b in zip(results[name], results["script"], strict=True))
            axes.barh(n + (i - 1) * 0.25, ratio, 0.25, color=f"C{i}", label=None if n else label)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_yticks(range(len(shapes)), [name.replace("_", " ") for name in shapes])
    axes.invert_yaxis()
    machine = found["machine"]
    axes.set_xlabel(f"processor time ÷ that of a script (Python {machine['python']}, ipykernel {machine['ipykernel']})")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        draw(json.load(file), sys.argv[2])
