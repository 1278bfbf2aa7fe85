"""Loss and validation curves of a run as an image (matplotlib)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

_SMOOTH = 50  # steps of the moving average


def draw_curves(log: Path, image: Path) -> None:
    """Plot a run's `log.jsonl`: the smoothed loss and the macro averages of the validation."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = np.array([row["loss"] for row in rows])
    window = min(_SMOOTH, len(losses))
    left.plot(
        [row["step"] for row in rows][window - 1 :],
        np.convolve(losses, np.ones(window) / window, mode="valid"),
    )
    left.set(title=f"loss, mean of {window} steps", xlabel="step")
    checked = [row for row in rows if row.get("validation")]
    for kind in checked[-1]["validation"].get("macro", {}) if checked else ():
        values = [row["validation"]["macro"].get(kind) for row in checked]
        right.plot([row["step"] for row in checked], values, marker="o", label=kind)
    right.set(title="held-out split, mean IoU over sources", xlabel="step")
    if checked:
        right.legend()
    figure.savefig(image)
