"""What a keyframe does to the tracks: recognize, decode, match, apply prompts, seed, remember."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.detectors.detector import DetectedBox
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.networks import KeyframeFeatures, Networks
from maskstream.pipeline.prompts import MAX_OBJECT_ID, Event
from maskstream.pipeline.segmenter.geometry import deepest
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, POSITIVE
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.tracking.detecting import masks_of_boxes, matching_settings
from maskstream.pipeline.tracking.prompting import apply_events
from maskstream.pipeline.tracking.recognition import (
    MemoryGrid,
    TrackRecognition,
    memory_settings,
)
from maskstream.pipeline.tracking.seeding import Seeder
from maskstream.pipeline.tracking.steps import working_size
from maskstream.pipeline.types import SizeHW
from maskstream.trackers.detector_matching import LabeledDetection, match_detections
from maskstream.trackers.flow import Flow
from maskstream.trackers.track import (
    LOGIT_LIMIT,
    BoolMap,
    Detection,
    FloatMap,
    Track,
    box_of,
)
from maskstream.trackers.tracker import Tracker, TrackerSettings

OBJECT_MOTION_MIN_PX = (
    0.5  # a frame, at working resolution, beside the camera's: something moves here
)
DECODER_SHARE = 0.5
"""Weight of the decoder's logits of a recognized track; the rest is the memory's."""
_BOX_MARGIN = 0.05  # of its longer side around a track's box, for limbs that its mask has lost

OnRefused = Callable[[int, PromptError], None]


class EncoderInput(NamedTuple):
    """What works on one size of the encoder's input."""

    networks: Networks
    grid: MemoryGrid
    seeder: Seeder


@dataclass(frozen=True, slots=True)
class KeyframeRequest:
    """What is to be done on one keyframe.

    features: of the frame. due: tracks to update. events: prompts of the frame. now_s: stream time,
    seconds. flow: from the previous frame, None in a new shot. seed: find new objects, with at most
    `prompts` prompts unless the shot is new. detections: of a detector that ran on the frame, None
    if none did.
    """

    features: KeyframeFeatures
    due: Sequence[Track]
    events: Sequence[Event]
    now_s: float
    flow: Flow | None
    seed: bool
    prompts: int
    detections: Sequence[DetectedBox] | None = None


class KeyframeStep:
    """Owns the tracks of a stream and the memory of their objects; one caller at a time.

    on_refused: called with the object whose prompt cannot be decoded; None: the `PromptError` is
    raised.
    """

    def __init__(
        self,
        config: PipelineConfig,
        networks: Networks,
        frame_hw: SizeHW,
        *,
        first_id: int,
        on_refused: OnRefused | None = None,
    ) -> None:
        self.times = StageTimes()
        self.working_hw = working_size(frame_hw, config.tracking.flow_long_side)
        self.tracker = Tracker(tracker_settings(config), first_id)
        self._config = config
        self.full_input = self.input_for(networks)
        self._frame_hw = frame_hw
        self._on_refused = on_refused
        self._matching = matching_settings(config)
        self._recognition = TrackRecognition(
            self.tracker, memory_settings(config), config.memory.max_searches
        )
        self._libraries = ThreadpoolController()

    def input_for(self, networks: Networks) -> EncoderInput:
        """The encoder input of networks for images of another size."""
        grid = MemoryGrid(networks.memory, networks.tracks.geometry, self.working_hw)
        return EncoderInput(networks, grid, Seeder(networks.segmenter, self._config.seeding))

    def run(self, request: KeyframeRequest, encoder_input: EncoderInput | None = None) -> None:
        """Bring the tracks up to date; raises `PromptError` unless refusals are taken.

        encoder_input: what the features are of; None: the full size.
        """
        with self._libraries.limit(limits=1, user_api="blas"):  # its threads spin and starve us
            self._run(request, *(encoder_input or self.full_input))

    def _run(
        self, request: KeyframeRequest, networks: Networks, grid: MemoryGrid, seeder: Seeder
    ) -> None:
        features, now_s = request.features, request.now_s
        before = [(track, track.mask) for track in (*request.due, *self.tracker.occluded_or_lost())]
        with self.times.stage("recognize"):
            frame = grid.keys_of(features.tracks)
            found = self._recognition.recognize(grid, request.due, frame, now_s)
        with self.times.stage("decode"):
            detections = self._redetect(networks.tracks, features.tracks, found)
            self.tracker.associate(found, detections, now_s)
            self._apply(request, networks.segmenter)
        alike = self._recognition.similarity(grid, frame)
        corrected: set[int] = set()
        if request.detections is not None:
            with self.times.stage("detections"):
                boxes = self._boxes(request.detections, request, networks.segmenter)
                corrected = match_detections(self.tracker, boxes, now_s, self._matching, alike)
        for track, mask in before:
            track.looked_at(mask)
        if self._config.seeding.enabled and request.seed:
            with self.times.stage("seed"):
                self.tracker.admit(
                    self._propose(request, networks, seeder),
                    now_s,
                    confirmed=request.flow is None,
                    looks_alike=alike,
                )
        with self.times.stage("recognize"):
            prompted = corrected | {e.object for e in request.events}
            self._recognition.remember(grid, frame, prompted, now_s)

    def _boxes(
        self, boxes: Sequence[DetectedBox], request: KeyframeRequest, segmenter: Segmenter
    ) -> list[LabeledDetection]:
        if not boxes:
            return []
        features = request.features.prompts()
        sizes = {"frame_hw": self._frame_hw, "working_hw": self.working_hw}
        return masks_of_boxes(segmenter, features, boxes, **sizes)

    def _apply(self, request: KeyframeRequest, segmenter: Segmenter) -> None:
        refused = apply_events(
            self.tracker,
            segmenter,
            request.features.prompts,
            request.events,
            frame_hw=self._frame_hw,
            working_hw=self.working_hw,
            now_s=request.now_s,
        )
        for object_id, error in refused.items():
            if self._on_refused is None:
                raise error
            self._on_refused(object_id, error)

    def _redetect(
        self, segmenter: Segmenter, features: Features, tracks: Sequence[Track]
    ) -> list[Detection]:
        """Decode tracks from their box, a point deep inside and their mask, and blend both."""
        live = [t for t in tracks if t.mask.any()]
        if not live:
            return []
        prompts = PromptBatch(
            np.stack([self._track_points(t) for t in live]),
            np.tile(
                np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, POSITIVE], np.float32), (len(live), 1)
            ),
            np.stack([segmenter.geometry.from_size(t.logits)[None] for t in live]),
        )
        decoded = segmenter.decode(features, prompts)
        return [
            Detection(
                self._blend(track, self._to_working(segmenter, decoded.masks[i, 0])),
                float(decoded.iou[i, 0]),
            )
            for i, track in enumerate(live)
            if decoded.iou[i, 0] >= self._config.tracking.score_min
        ]

    def _blend(self, track: Track, decoded: FloatMap) -> FloatMap:
        """Mean of the logits of a recognized track and the decoder's; else the decoder's alone."""
        limited = np.clip(decoded, -LOGIT_LIMIT, LOGIT_LIMIT)
        if track.id not in self._recognition.bank:
            return limited
        blend = cv2.addWeighted(track.logits, 1 - DECODER_SHARE, limited, DECODER_SHARE, 0)
        return np.asarray(blend, np.float32)

    def _track_points(self, track: Track) -> npt.NDArray[np.float32]:
        """Prompt of a track in displayed pixels [3, 2]: a box around it and the deepest point."""
        box = box_of(track.mask)
        assert box is not None  # noqa: S101 - tracks with an empty mask are left out
        margin = _BOX_MARGIN * (box[2:] - box[:2]).max()
        near = np.maximum(box[:2] - margin, 0)
        far = np.minimum(box[2:] + margin, self.working_hw[::-1])
        x, y, _ = deepest(track.mask)
        points = np.array([near, far, (x + 0.5, y + 0.5)])
        scale = np.array(self._frame_hw[::-1]) / np.array(self.working_hw[::-1])
        return np.asarray(points * scale, np.float32)

    def _propose(
        self, request: KeyframeRequest, networks: Networks, seeder: Seeder
    ) -> list[Detection]:
        """Objects that are found where no track is."""
        max_new = self._config.seeding.max_objects - len(self.tracker.live())
        if max_new <= 0:
            return []
        segmenter, boxes = networks.segmenter, networks.boxes(request.features)
        occupied = _on_grid(segmenter, self.tracker.occupied_mask(self.working_hw))
        if request.flow is None:
            found = seeder.propose_after_cut(request.features.prompts(), occupied, max_new, boxes)
        else:
            moving = _on_grid(segmenter, request.flow.object_speed() > OBJECT_MOTION_MIN_PX)
            found = seeder.propose_incremental(
                request.features.prompts(), occupied, max_new, moving, request.prompts, boxes
            )
        return [Detection(self._to_working(segmenter, p.logits), p.score) for p in found]

    def _to_working(self, segmenter: Segmenter, logits: FloatMap) -> FloatMap:
        return segmenter.geometry.to_size(logits, self.working_hw)


def tracker_settings(config: PipelineConfig) -> TrackerSettings:
    """What a configuration says of the tracker."""
    tracking = config.tracking
    return TrackerSettings(
        association_iou_min=tracking.association_iou_min,
        reentry_box_iou_min=tracking.reentry_box_iou_min,
        lost_after_misses=tracking.lost_after_misses,
        remove_after_s=tracking.remove_after_s,
        confirm_hits=tracking.confirm_hits,
        last_id=MAX_OBJECT_ID,
    )


def _on_grid(segmenter: Segmenter, mask: BoolMap) -> BoolMap:
    """A mask at working resolution on the grid of the low-resolution logits."""
    return segmenter.geometry.from_size(mask.astype(np.float32)) > 0.5
