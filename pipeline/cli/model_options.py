"""Options that choose the network and what runs it, shared by all commands that segment."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What the command line says of the model; None: as configured.

    device: "cpu", "cuda" or "auto". engine: "openvino", "onnxruntime" or "auto".
    """

    model: str | None = None
    device: str | None = None
    engine: str | None = None

    @property
    def settings(self) -> list[str]:
        """Configuration overrides, `key=value`."""
        values = {"model": self.model, "device": self.device, "engine": self.engine}
        return [f"{k}={json.dumps(v)}" for k, v in values.items() if v is not None]


NO_MODEL_OPTIONS = ModelOptions()
