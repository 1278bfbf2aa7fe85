"""The models that a session may choose, and the one that answers its clicks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import PromptError
from maskstream.ui.editing.clicker import Clicker, Segmenters
from maskstream.ui.editing.session import Session


class SessionModels:
    """Segmenters of the models that the server offers a session, by name ("": the configured)."""

    def __init__(
        self, session: Session, segmenters: Mapping[str, Segmenters], size_hw: tuple[int, int]
    ) -> None:
        self._session = session
        self._segmenters = segmenters
        self._size_hw = size_hw
        self._clickers: dict[str, Clicker] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._segmenters

    @property
    def is_chosen_offered(self) -> bool:
        """Whether the server offers the model that the session has chosen."""
        return self._session.state.model in self

    @property
    def chosen(self) -> Segmenters:
        """Segmenters of the model that the session has chosen. Raises `PromptError`."""
        name = self._session.state.model
        if name not in self:
            raise PromptError(f"This server does not offer the model {name}; choose another one.")
        return self._segmenters[name]

    @property
    def config(self) -> PipelineConfig:
        """Configuration with the chosen model. Raises `PromptError`."""
        return self.chosen.config

    @property
    def clicker(self) -> Clicker:
        """What answers clicks with the chosen model. Raises `PromptError`."""
        chosen, name = self.chosen, self._session.state.model
        with self._lock:
            if name not in self._clickers:
                self._clickers[name] = Clicker(chosen, self._size_hw)
            return self._clickers[name]
