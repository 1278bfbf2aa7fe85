"""What happens to one frame: flow, tracks, and on keyframes the segmenter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from maskstream.pipeline.config import PipelineConfig
from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.models.open import open_segmenter
from maskstream.pipeline.prompts import (
    MAX_OBJECT_ID,
    BoxEvent,
    Event,
    MaskEvent,
    PointEvent,
    PromptLog,
)
from maskstream.pipeline.segmenter.geometry import FloatMap, deepest
from maskstream.pipeline.segmenter.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, POSITIVE
from maskstream.pipeline.segmenter.model import Features, PromptBatch, Segmenter, best_of_three
from maskstream.pipeline.segmenter.predictor import single_prompt
from maskstream.pipeline.stage_times import StageTimes
from maskstream.pipeline.tracking.keyframes import KeyframeBudget, KeyframeEncoder
from maskstream.pipeline.tracking.prefetch import FlowPrefetcher
from maskstream.pipeline.tracking.recognition import Recognizer, appearance_settings
from maskstream.pipeline.tracking.refinement import TrackedFrame
from maskstream.pipeline.tracking.result_composer import ComposedFrame, ResultComposer
from maskstream.pipeline.tracking.seeding import Seeder
from maskstream.pipeline.types import Frame, FrameResult, SizeHW
from maskstream.trackers.appearance import CellFeatures, MemoryReadout, resolve_overlaps
from maskstream.trackers.flow import Flow
from maskstream.trackers.track import LOGIT_LIMIT, BoolMap, Detection, Track, box_of
from maskstream.trackers.tracker import Tracker, TrackerSettings

T = TypeVar("T")

OBJECT_MOTION_MIN_PX = 0.5  # a frame, beside the camera's own: something moves here
_BOX_MARGIN = 0.05  # of its longer side around a track's box, for limbs that its mask has lost
_COMPOSE_LAG = 2  # frames that are tracked while the label map of one is composed (files)
DEFAULT_FRAME_INTERVAL_S = 1 / 25  # between frames that carry no timestamps


class FrameProcessor:
    """State of one stream between its frames.

    Everything it holds is bounded: one frame's luma, the frames it looks ahead, the features of the
    keyframes among them, the live tracks; if it refines, also the frames that wait for a keyframe.
    """

    encoder_wait_stage = "wait"
    """Name of the stage of waiting for a keyframe's features (as of waiting for label maps)."""

    def __init__(
        self,
        config: PipelineConfig,
        model: Path,
        frame_hw: SizeHW,
        prompts: PromptLog,
        extra_tracks: Callable[[int], Sequence[Track]] = lambda index: (),
        segmenter: Segmenter | None = None,
    ) -> None:
        """extra_tracks: of a frame, by its number; they are shown beside those followed here.

        segmenter: one for frames of this size that nobody else uses; None: it is loaded.
        """
        self.times = StageTimes()
        self.keyframes = 0
        self._config = config
        self._prompts = prompts
        self._frame_hw = frame_hw
        self._working_hw = working_size(frame_hw, config.tracking.flow_long_side)
        with self.times.stage("load"):
            self._segmenter = segmenter or open_segmenter(config, model, frame_hw)
        self._encoder = KeyframeEncoder(self._segmenter, config.keyframes.interval)
        self._flows = FlowPrefetcher(self._working_hw)
        self._composer = ResultComposer(frame_hw, extra_tracks, refine=config.refines)
        waits = config.queue.policy == "wait"  # live frames do not
        self._ahead = config.keyframes.lookahead if waits else 0
        self._compose_lag = _COMPOSE_LAG if waits else 0
        self._seeder = Seeder(self._segmenter, config.seeding)
        tracking = config.tracking
        self._tracker = Tracker(
            TrackerSettings(
                association_iou_min=tracking.association_iou_min,
                reentry_box_iou_min=tracking.reentry_box_iou_min,
                lost_after_misses=tracking.lost_after_misses,
                remove_after_s=tracking.remove_after_s,
                confirm_hits=tracking.confirm_hits,
                last_id=MAX_OBJECT_ID,
            ),
            first_id=prompts.last_object + 1,
        )
        self._recognizer = Recognizer(
            self._segmenter.geometry, self._working_hw, appearance_settings(config)
        )
        self._budget = KeyframeBudget(
            *(config.keyframes.interval, 1.0, config.seeding.prompts_per_keyframe, MAX_OBJECT_ID)
        )
        self._search_cursor = 0
        self._libraries = ThreadpoolController()
        self._now_s: float | None = None
        self._since_keyframe = 0
        self._shown: Sequence[Track] = ()

    def close(self) -> None:
        """End the threads."""
        self._flows.close()
        self._encoder.close()
        self._composer.close()

    def running(self) -> dict[str, float]:
        """How long each stage at work has been, seconds; for any thread."""
        return self.times.running() | self._composer.times.running()

    @property
    def segmenter(self) -> Segmenter:
        """The network, for somebody else's use once this is closed."""
        return self._segmenter

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks as they are on the frame whose result came last."""
        return self._shown

    def results(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FrameResult]]:
        """Process frames in order.

        While one is tracked, regular keyframes among the next are encoded, their flow is estimated,
        and the label maps of those before are composed.
        """
        waiting: deque[Future[list[ComposedFrame]]] = deque()
        for tracked in self._steps(frames):
            waiting.append(self._composer.submit(tracked))
            if len(waiting) > self._compose_lag:
                yield from self._results(waiting.popleft())
        waiting.append(self._composer.flush())
        while waiting:
            yield from self._results(waiting.popleft())

    def _steps(self, frames: Iterable[Frame]) -> Iterator[TrackedFrame]:
        for frame in self._encoder.prefetch(self._flows.prefetch(frames), self._ahead):
            yield self._step(frame)

    def _displayed(self, frame: Frame) -> Frame:
        """A frame at the size of the first one."""
        return frame if frame.size_hw == self._frame_hw else replace(frame, size_hw=self._frame_hw)

    def _step(self, frame: Frame) -> TrackedFrame:
        frame = self._displayed(frame)
        first = self._now_s is None
        dt_s = self._clock(frame)
        now_s = self._now_s or 0.0
        with self.times.stage("wait"):
            flow = self._flows.next()
        self.times.seconds["flow"] = self._flows.seconds
        with self.times.stage("propagate"):
            cut = flow is not None and flow.residual > self._config.keyframes.cut_residual
            if cut:
                self._tracker.mark_all_lost()
            self._tracker.advance(None if cut else flow, dt_s)
        events = self._prompts.at(frame.index)
        self._since_keyframe += 1
        regular = self._encoder.is_regular(frame)
        fresh = first or cut
        due = self._due_tracks(everything=fresh or regular or bool(events))
        keyframe = fresh or regular or bool(events or due)
        if keyframe:
            self._since_keyframe = 0
            self.keyframes += 1
            with self._libraries.limit(limits=1, user_api="blas"):  # its threads spin and starve us
                self._keyframe(
                    *(frame, events, due, now_s, None if fresh else flow),
                    seed=fresh or regular,
                )
        tracks = [snapshot(track) for track in self._tracker.tracks]
        return TrackedFrame(frame, keyframe, None if cut else flow, tracks)

    def _due_tracks(self, *, everything: bool) -> list[Track]:
        """Tracks that a keyframe now is to look at: all, or those that moved far since the last."""
        if everything:
            return self._tracker.live()
        if self._since_keyframe < self._config.keyframes.interval_min:
            return []
        return self._tracker.moved_far(self._config.keyframes.motion_max)

    def _results(self, shown: Future[list[ComposedFrame]]) -> Iterator[tuple[Frame, FrameResult]]:
        with self.times.stage("wait"):
            done = shown.result()
        self.times.seconds |= dict(self._composer.times.seconds)
        for tracked, result in done:
            self._shown = tracked.tracks
            yield tracked.frame, result

    def _clock(self, frame: Frame) -> float:
        """Advance the stream's clock to a frame; seconds since the one before."""
        before = self._now_s
        given = frame.pts_s
        if before is None:
            self._now_s = given or 0.0
            return 0.0
        self._now_s = (
            given if given is not None and given > before else before + DEFAULT_FRAME_INTERVAL_S
        )
        return self._now_s - before

    def _keyframe(
        self,
        frame: Frame,
        events: Sequence[Event],
        due: Sequence[Track],
        now_s: float,
        flow: Flow | None,
        *,
        seed: bool,
    ) -> None:
        """due: tracks to look at. flow: from the frame before, None in a fresh shot.

        seed: look for new objects.
        """
        with self.times.stage(self.encoder_wait_stage):
            features = self._encoder.encode(frame)
        self.times.seconds["encode"] = self._encoder.seconds
        with self.times.stage("recognize"):
            cells = self._recognizer.cells(features)
            seen = self._recognize(due, cells, now_s)
        with self.times.stage("decode"):
            self._tracker.associate(seen, self._redetect(seen, features), now_s)
            self._apply(events, features, now_s)
        if self._config.seeding.enabled and seed:
            with self.times.stage("seed"):
                found = self._search(features, flow)
                self._tracker.admit(
                    found,
                    now_s,
                    confirmed=flow is None,
                    looks_alike=lambda track, seen: self._matches_appearance(track, seen, cells),
                )
        with self.times.stage("recognize"):
            self._remember(cells, {e.object for e in events})

    def _recognize(self, due: Sequence[Track], cells: CellFeatures, now_s: float) -> list[Track]:
        """Propose a mask for tracks that are remembered, or hide them; look for the hidden.

        Gives those that live, and hidden ones that were found.
        """
        readouts: dict[int, MemoryReadout] = {}
        looks = self._config.appearance.max_searches  # in the whole picture, on this keyframe
        for track in due:
            if not (self._recognizer.knows(track.id) and track.mask.any()):
                continue
            readout = self._recognizer.read(track.id, cells, track.logits)
            recognized = self._recognizes(track, readout)
            if looks > 0 and not recognized:
                looks -= 1
                readout = self._recognizer.read(track.id, cells, None)
                recognized = self._recognizes(track, readout)
            if recognized:
                readouts[track.id] = readout
            else:
                self._tracker.mark_occluded(track)
        readouts = resolve_overlaps(readouts)
        visible = list(readouts.values())
        seen = [track for track in due if track.alive]
        for track in self._next_searches(looks):
            readout = self._recognizer.read(track.id, cells, None)
            free = readout.without_claimed(visible)
            mostly_free = free.size > 0.5 * readout.size
            if mostly_free and self._recognizes(track, free):
                readouts[track.id] = free
                seen.append(track)
        for object_id, readout in readouts.items():
            known = self._tracker.find(object_id)
            logits = self._recognizer.logits(readout)
            if known is not None and self._tracker.apply_recognition(
                known, logits, readout.affinity, now_s
            ):
                self._recognizer.add_recent(object_id, cells, readout, now_s)
        return seen

    def _next_searches(self, looks: int) -> list[Track]:
        """The hidden tracks that this keyframe looks for: a few, all in turn."""
        absent = [t for t in self._tracker.occluded_or_lost() if self._recognizer.knows(t.id)]
        chosen, self._search_cursor = round_robin(absent, looks, self._search_cursor)
        return chosen

    def _recognizes(self, track: Track, readout: MemoryReadout) -> bool:
        return self._tracker.recognizes(track, self._recognizer.logits(readout), readout.affinity)

    def _matches_appearance(self, track: Track, seen: Detection, cells: CellFeatures) -> bool:
        """Whether what was found may be a track's object; so it may if nothing is remembered."""
        if not self._recognizer.knows(track.id):
            return True
        return self._recognizes(track, self._recognizer.read(track.id, cells, seen.logits))

    def _remember(self, cells: CellFeatures, prompted: set[int]) -> None:
        """Remember what a person gave on this keyframe and what has just got an identity."""
        known = [t for t in self._tracker.tracks if t.id > 0]
        for track in known:
            new = not self._recognizer.knows(track.id)
            if track.visible and track.mask.any() and (new or track.id in prompted):
                self._recognizer.add_reference(track.id, cells, track.logits)
        self._recognizer.keep_only(track.id for track in known)

    def _redetect(self, tracks: Sequence[Track], features: Features) -> list[Detection]:
        """Decode tracks from their box, a point deep inside and their carried mask."""
        live = [t for t in tracks if t.mask.any()]
        if not live:
            return []
        prompts = PromptBatch(
            np.stack([self._track_points(t) for t in live]),
            np.tile(
                np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, POSITIVE], np.float32), (len(live), 1)
            ),
            np.stack([self._segmenter.geometry.from_size(t.logits)[None] for t in live]),
        )
        decoded = self._segmenter.decode(features, prompts)
        return [
            Detection(self._to_working_resolution(decoded.masks[i, 0]), float(decoded.iou[i, 0]))
            for i in range(len(live))
            if decoded.iou[i, 0] >= self._config.tracking.score_min
        ]

    def _track_points(self, track: Track) -> npt.NDArray[np.float32]:
        """Prompt of a track in displayed pixels [3, 2]: a box around it and the deepest point."""
        box = box_of(track.mask)
        assert box is not None  # noqa: S101 - live tracks with an empty mask are left out
        margin = _BOX_MARGIN * (box[2:] - box[:2]).max()
        near, far = (
            np.maximum(box[:2] - margin, 0),
            np.minimum(box[2:] + margin, self._working_hw[::-1]),
        )
        x, y, _ = deepest(track.mask)
        points = np.array([near, far, (x + 0.5, y + 0.5)])
        scale = np.array(self._frame_hw[::-1]) / np.array(self._working_hw[::-1])
        return np.asarray(points * scale, np.float32)

    def _search(self, features: Features, flow: Flow | None) -> list[Detection]:
        """Look for new objects where no track is; flow: to this frame, None in a fresh shot."""
        max_new = self._config.seeding.max_objects - len(self._tracker.live())
        occupied_mask = self._on_grid(self._tracker.occupied_mask(self._working_hw))
        if flow is None:
            found = self._seeder.propose_after_cut(features, occupied_mask, max_new)
        else:
            moving = self._on_grid(flow.object_speed() > OBJECT_MOTION_MIN_PX)
            found = self._seeder.propose_incremental(
                features, occupied_mask, max_new, moving, self._budget.prompts
            )
        return [Detection(self._to_working_resolution(p.logits), p.score) for p in found]

    def _on_grid(self, mask: BoolMap) -> BoolMap:
        """A mask at the working resolution as one on the grid of the logits."""
        return self._segmenter.geometry.from_size(mask.astype(np.float32)) > 0.5

    def _apply(self, events: Sequence[Event], features: Features, now_s: float) -> None:
        """Carry out a frame's events: points and a box of one object are one prompt.

        A mask is taken as it is; points and boxes given with it refine it.
        """
        prompted: dict[int, list[PointEvent | BoxEvent]] = {}
        for event in events:
            if isinstance(event, PointEvent | BoxEvent):
                prompted.setdefault(event.object, []).append(event)
                continue
            prompted.pop(event.object, None)
            if isinstance(event, MaskEvent):
                logits = mask_logits(event.mask, self._working_hw)
                self._tracker.set(event.object, logits, 1.0, now_s)
            else:
                self._tracker.remove(event.object)
        for object_id, given in prompted.items():
            self._prompt(features, object_id, given, now_s)

    def _prompt(
        self,
        features: Features,
        object_id: int,
        given: list[PointEvent | BoxEvent],
        now_s: float,
    ) -> None:
        """Carry out an object's points and box. Raises `PromptError`."""
        logits, score = self._decode_events(features, object_id, given)
        self._tracker.set(object_id, self._to_working_resolution(logits), score, now_s)

    def _decode_events(
        self, features: Features, object_id: int, events: list[PointEvent | BoxEvent]
    ) -> tuple[FloatMap, float]:
        """Decode a person's prompt; an object that is tracked gives its mask as prompt too."""
        points = [e for e in events if isinstance(e, PointEvent)]
        boxes = [e for e in events if isinstance(e, BoxEvent)]
        track = self._tracker.find(object_id)
        known = track is not None and track.visible and track.mask.any()
        if not boxes and not known and not any(p.label for p in points):
            raise PromptError(
                f"object {object_id} has only negative points on frame {events[0].frame}: "
                "give a positive point or a box first"
            )
        prompt = single_prompt(
            self._frame_hw,
            [p.xy for p in points] or None,
            [p.label for p in points] or None,
            boxes[-1].xyxy if boxes else None,
        )
        if known and track is not None:
            mask = self._segmenter.geometry.from_size(track.logits)[None, None]
            prompt = PromptBatch(prompt.xy, prompt.labels, mask)
        decoded = self._segmenter.decode(features, prompt)
        ambiguous = len(points) == 1 and not boxes and not known
        index = int(best_of_three(decoded)[0]) if ambiguous else 0
        return decoded.masks[0, index], float(decoded.iou[0, index])

    def _to_working_resolution(self, logits: FloatMap) -> FloatMap:
        return self._segmenter.geometry.to_size(logits, self._working_hw)


def round_robin(items: Sequence[T], limit: int, cursor: int) -> tuple[list[T], int]:
    """At most so many items, from the cursor on and round, and where to go on next time."""
    if not items:
        return [], cursor
    start, count = cursor % len(items), min(len(items), limit)
    return [*items, *items][start : start + count], start + count


def snapshot(track: Track) -> Track:
    """A track that stays as it is; its arrays are never written to again."""
    return replace(track, motion=replace(track.motion))


def mask_logits(mask: npt.NDArray[np.bool_], size_hw: SizeHW) -> FloatMap:
    """A mask bool [H, W] as logits float32 at `size_hw`; half-covered cells have 0."""
    height, width = size_hw
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray((2 * shares - 1) * LOGIT_LIMIT, np.float32)


def working_size(frame_hw: SizeHW, long_side: int) -> SizeHW:
    """Size of the grid that flow and masks are carried on: the frame's aspect, never larger."""
    scale = min(1.0, long_side / max(frame_hw))
    return max(1, round(frame_hw[0] * scale)), max(1, round(frame_hw[1] * scale))
