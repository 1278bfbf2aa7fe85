"""A detector of what words say: GroundingDINO or OWLv2 by `transformers`, weights by the user.

Nothing is downloaded: the weights are a folder with `config.json`, as `save_pretrained` writes it.
GroundingDINO: Liu et al., arXiv 2303.05499; OWLv2: Minderer et al., arXiv 2306.09683.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.errors import DetectorError, MissingExtraError
from maskstream.pipeline.types import Frame, SizeHW

HOW = (
    "words need a text detector: pip install 'maskstream[text]', and with --detector FOLDER the "
    "weights of GroundingDINO or OWLv2 as transformers saves them (nothing is downloaded)"
)


class TextDetector:
    """Finds what phrases name: `a dog. a red car`.

    folder: of the weights. score_min: least score of a box, and of a word in it.

    Raises:
        MissingExtraError: `transformers` is not installed.
        DetectorError: there are no phrases, or the folder holds no such network.
    """

    frames: Collection[int] | None = None

    def __init__(self, folder: Path, text: str, *, score_min: float = 0.25) -> None:
        self.labels = phrases(text)
        if not (folder / "config.json").is_file():
            raise DetectorError(f"{folder} holds no weights (config.json is missing): {HOW}")
        transformers = _transformers()
        self.name = folder.name
        self._score_min = score_min
        self._torch: Any = import_module("torch")
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(
                folder, local_files_only=True
            )
            self._network = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
                folder, local_files_only=True
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise DetectorError(f"{folder} cannot be loaded: {error}") from error

    def check(self, size_hw: SizeHW) -> None:
        """Such networks take images of any size."""

    def detect(self, frame: Frame) -> Sequence[DetectedBox]:
        """Run the network on the frame and the phrases."""
        image = frame.rgb()
        inputs = self._processor(
            images=image, text=[list(self.labels)], return_tensors="pt", padding=True
        )
        with self._torch.inference_mode():
            outputs = self._network(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=self._score_min, target_sizes=[image.shape[:2]], **self._ids(inputs)
        )
        names = found.get("text_labels")
        if names is None:
            names = [self.labels[int(number)] for number in found["labels"]]
        return [
            DetectedBox(tuple(box), self._phrase(str(name)), min(1.0, float(score)))
            for box, name, score in zip(
                found["boxes"].tolist(), names, found["scores"].tolist(), strict=True
            )
        ]

    def _ids(self, inputs: Any) -> dict[str, Any]:
        """GroundingDINO finds its phrases again by the tokens; OWLv2 numbers them."""
        if self._network.config.model_type != "grounding-dino":
            return {"text_labels": [list(self.labels)]}
        return {"input_ids": inputs["input_ids"], "text_threshold": self._score_min}

    def _phrase(self, found: str) -> str:
        """The phrase that a label of the network, maybe a part or several, is of."""
        if found in self.labels:
            return found
        words = set(found.split())
        return max(self.labels, key=lambda phrase: len(words & set(phrase.split())))


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text, separated by full stops or commas. Raises `DetectorError`."""
    found = [" ".join(part.lower().split()) for part in re.split(r"[.,;\n]", text)]
    named = tuple(dict.fromkeys(part for part in found if part))
    if not named:
        raise DetectorError("--text names nothing; write for example 'a dog. a red car'")
    return named


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise MissingExtraError(HOW) from error
