"""Training sequences made of labelled stills: layers that move, deform, hide each other and leave.

What STM, STCN and XMem pre-train on, with more of what goes wrong on real video: look-alikes from
the same image or source, objects that leave, turn, grow and come into view, limbs that move.
Every sequence is a pure function of (seed, index).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.lab.training.augment import Image, Labels
from maskstream.pipeline.lab.training.video.motion import (
    Map,
    Pace,
    Placement,
    Pose,
    draw_fields,
    draw_pace,
    draw_poses,
    place,
)
from maskstream.pipeline.lab.training.video.stills import WHOLE_SOURCES, Sprite, StillLibrary

SIZE_HW = (288, 512)
OBJECTS = 2  # at most, that a sequence asks for
_FIRST_SHARE = 0.003  # of the frame that an object covers where it is given, at least
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class SequenceConfig:
    """Odds and sizes of what happens in a sequence.

    frames: its length; the first is the prompt's. leap: odds that the second lies far from the
    first. twin: odds that a sprite is there twice; kin: that something of the same source is there;
    crosses: that such a look-alike passes its original. leaves: odds that an object is absent from
    some frame on; replaced: that a look-alike is there while it is. reveals: odds that only a part
    of an object is seen at first, as of one that turns. base_objects: odds that objects of the
    ground image, which move with the camera, are asked for.
    """

    frames: int = 5
    leap: float = 0.5
    twin: float = 0.2
    kin: float = 0.4
    crosses: float = 0.5
    leaves: float = 0.18
    returns: float = 0.6
    replaced: float = 0.6
    reveals: float = 0.2
    base_objects: float = 0.35
    blur: float = 0.2
    noise: float = 0.35
    jpeg: float = 0.6


@dataclass(frozen=True, slots=True)
class Sequence:
    """frames: RGB uint8 [T, H, W, 3]; labels: uint8 [T, H, W], 0 or 1..OBJECTS."""

    frames: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A sprite in time, by frame. gains: factor on each color. revealed: share of the sprite that
    is seen, from the side that `side` (radians) points away from.
    """

    sprite: Sprite
    poses: list[Pose]
    fields: list[Map]
    shown: npt.NDArray[np.bool_]
    gains: npt.NDArray[np.float32]
    revealed: npt.NDArray[np.float32]
    side: float

    def at(self, t: int) -> Sprite:
        """The sprite as it is seen on a frame."""
        if self.revealed[t] >= 1:
            return self.sprite
        height, width = self.sprite.shape[:2]
        y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
        along = np.cos(self.side) * x + np.sin(self.side) * y
        seen = along <= np.quantile(along[self.sprite[..., 3] > 127], self.revealed[t])
        return np.dstack([self.sprite[..., :3], self.sprite[..., 3] * seen])


class SequenceSampler:
    """Draws sequences of the stills below a folder; deterministic in (seed, index)."""

    def __init__(
        self,
        root: Path,
        config: SequenceConfig | None = None,
        *,
        seed: int,
        held_back: bool = False,
    ) -> None:
        self.config = config or SequenceConfig()
        self._library = StillLibrary.find(root, held_back=held_back)
        self._seed = seed

    def draw(self, index: int) -> Sequence:
        """The sequence of a number."""
        rng = np.random.default_rng((self._seed, index))
        for _ in range(_ATTEMPTS):
            found = self._attempt(rng)
            if found is not None:
                return found
        return self.draw(index + 1_000_000_007)

    def _attempt(self, rng: np.random.Generator) -> Sequence | None:
        config = self.config
        still = self._library.draw_still(rng)
        ground, ids = still.image.load()
        leap = float(rng.uniform(1.5, 4.5)) if rng.random() < config.leap else 1.0
        from_base = rng.random() < config.base_objects
        whole = still.source in WHOLE_SOURCES and rng.random() < 0.6
        if whole:
            ids = (ids > 0).astype(np.int32)
        base = self._base(rng, ground.shape[:2], leap, ids if from_base else None)
        layers = self._layers(rng, still.source, leap, few=from_base)
        frames, owners = [], []
        gray_ids = np.clip(ids, 0, 254).astype(np.uint8)
        for t in range(config.frames):
            frame, owner = _compose(ground, gray_ids, base[t], layers, t)
            if t == 0:
                wanted = _choose(rng, owner, from_base=from_base)
                if not wanted:
                    return None
            frames.append(frame)
            owners.append(owner)
        frames = self._develop(rng, frames)
        labels = np.zeros((config.frames, *SIZE_HW), np.uint8)
        for number, chosen in enumerate(wanted, 1):
            for t, owner in enumerate(owners):
                labels[t][owner == chosen] = number
        return Sequence(np.stack(frames), labels)

    def _base(
        self,
        rng: np.random.Generator,
        ground_hw: tuple[int, int],
        leap: float,
        ids: Labels | None,
    ) -> list[Placement]:
        """Where the ground image lies in every frame: a camera that pans, turns and zooms.

        ids: label map of what the camera looks at, if its objects are asked for.
        """
        height, width = SIZE_HW
        cover = max(height / ground_hw[0], width / ground_hw[1])
        zoom = cover * float(np.exp(rng.uniform(0.0, 0.7)))
        pace = draw_pace(rng)
        still_camera = ids is None and rng.random() < 0.3
        pace = pace.times(0.0 if still_camera else (1.0 if ids is not None else 0.5))
        room_x = max(0.0, ground_hw[1] * zoom - width) / 2
        room_y = max(0.0, ground_hw[0] * zoom - height) / 2
        first = Pose(
            width / 2 + float(rng.uniform(-room_x, room_x)),
            height / 2 + float(rng.uniform(-room_y, room_y)),
            zoom,
            angle=float(rng.normal(0, 0.08)),
            squeeze=1.0 if rng.random() < 0.5 else -1.0,
        )
        if ids is not None:
            first = _look_at(rng, first, ids)
        camera = Pace(pace.shift, 0.7 * pace.scale, 0.5 * pace.angle, 0.4 * pace.squeeze, 0.0)
        count = self.config.frames
        poses = draw_poses(rng, first, camera, count, width=width, leap=min(leap, 2.5))
        bend = replace(pace, bend=0.35 * pace.bend)
        fields = draw_fields(rng, bend, count, leap=min(leap, 2.5), hinges=0)
        placed = []
        for pose, field in zip(poses, fields, strict=True):
            found = place(ground_hw, pose, field, SIZE_HW, everywhere=True)
            assert found is not None  # noqa: S101 - everywhere
            placed.append(found)
        return placed

    def _layers(
        self, rng: np.random.Generator, base_source: str, leap: float, *, few: bool
    ) -> list[_Layer]:
        count = int(rng.choice([0, 1, 2], p=[0.3, 0.45, 0.25]) if few else rng.integers(1, 4))
        layers: list[_Layer] = []
        for _ in range(count):
            near = base_source if rng.random() < 0.25 else None
            sprite, source = self._library.draw_sprite(rng, near)
            layer = self._layer(rng, sprite, leap)
            layers.append(layer)
            if rng.random() < self.config.twin:
                other = self._layer(rng, _recolored(rng, sprite), leap)
            elif source is not None and rng.random() < self.config.kin:
                other = self._layer(rng, self._library.draw_sprite(rng, source)[0], leap)
            else:
                other = None
            if other is not None:
                crosses = rng.random() < self.config.crosses
                layers.append(_crossing(rng, other, layer) if crosses else other)
            if not layer.shown.all() and rng.random() < self.config.replaced:
                other = self._layer(rng, self._look_alike(rng, sprite, source), leap)
                layers.append(replace(other, shown=~layer.shown))
        order = rng.permutation(len(layers))
        return [layers[int(i)] for i in order]

    def _look_alike(self, rng: np.random.Generator, sprite: Sprite, source: str | None) -> Sprite:
        if source is None or rng.random() < 0.5:
            return _recolored(rng, sprite)
        return self._library.draw_sprite(rng, source)[0]

    def _layer(self, rng: np.random.Generator, sprite: Sprite, leap: float) -> _Layer:
        height, width = SIZE_HW
        count = self.config.frames
        side = height * float(np.exp(rng.uniform(np.log(0.2), np.log(1.35))))
        pace = draw_pace(rng)
        first = Pose(
            float(rng.uniform(0.02, 0.98)) * width,
            float(rng.uniform(0.05, 0.95)) * height,
            side / max(sprite.shape[:2]),
            angle=float(rng.normal(0, 0.25)),
            squeeze=float(rng.choice([1.0, -1.0]) * np.exp(rng.normal(0, 0.1))),
        )
        poses = draw_poses(rng, first, pace, count, width=width, leap=leap)
        hinges = int(rng.integers(0, 4))
        fields = draw_fields(rng, pace, count, leap=leap, hinges=hinges)
        shown = np.ones(count, np.bool_)
        if rng.random() < self.config.leaves:
            start = int(rng.integers(1, count))
            shown[start:] = False
            if rng.random() < self.config.returns and start + 1 < count:
                back = int(rng.integers(start + 1, count))
                shown[back:] = True
                jump = rng.normal(0, 0.3, 2) * (width, height)
                poses[back:] = [
                    replace(p, x=p.x + float(jump[0]), y=p.y + float(jump[1])) for p in poses[back:]
                ]
        revealed = np.ones(count, np.float32)
        if rng.random() < self.config.reveals:
            first_share = float(rng.uniform(0.25, 0.7))
            revealed = np.minimum(first_share + np.arange(count) * rng.uniform(0.08, 0.4), 1)
        light = np.cumsum(rng.normal(0, 0.04, (count, 1)), 0) + rng.normal(0, 0.015, (count, 3))
        gains = np.exp(light).astype(np.float32)
        side = float(rng.uniform(0, 2 * np.pi))
        return _Layer(sprite, poses, fields, shown, gains, revealed.astype(np.float32), side)

    def _develop(self, rng: np.random.Generator, frames: list[Image]) -> list[Image]:
        """What a camera does to a sequence: exposure, blur, noise, compression."""
        config = self.config
        gamma = float(np.exp(rng.normal(0, 0.15)))
        exposure = np.exp(rng.normal(0, 0.12) + np.cumsum(rng.normal(0, 0.04, len(frames))))
        saturation = float(rng.uniform(0.6, 1.3)) if rng.random() > 0.04 else 0.0
        noise = float(rng.uniform(1, 8)) if rng.random() < config.noise else 0.0
        quality = int(rng.integers(35, 95)) if rng.random() < config.jpeg else 0
        soft = float(rng.uniform(0.4, 1.2)) if rng.random() < config.blur else 0.0
        out = []
        for frame, gain in zip(frames, exposure, strict=True):
            levels = np.linspace(0, 1, 256) ** gamma * float(gain) * 255
            image = cv2.LUT(frame, np.clip(levels, 0, 255).astype(np.uint8))
            if abs(saturation - 1) > 0.1:
                gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
                image = cv2.addWeighted(image, saturation, gray, 1 - saturation, 0)
            if soft:
                image = cv2.GaussianBlur(image, (0, 0), soft)
            if rng.random() < 0.5 * config.blur:
                image = _motion_blur(rng, np.asarray(image, np.uint8))
            if noise:
                grain = noise * rng.standard_normal(image.shape, np.float32)
                image = np.clip(image + grain, 0, 255).astype(np.uint8)
            if quality:
                _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
                image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
            out.append(np.asarray(image, np.uint8))
        return out


_BASE = 0
_LAYER = 256  # owners from here on are layers, those below are objects of the ground image


def _compose(
    ground: Image,
    ids: npt.NDArray[np.uint8],
    base: Placement,
    layers: list[_Layer],
    t: int,
) -> tuple[Image, npt.NDArray[np.uint16]]:
    """A frame and whose each pixel is: an object of the ground image, or a layer."""
    frame = base.apply(ground, border=cv2.BORDER_REFLECT_101)
    owner = base.apply(ids, nearest=True).astype(np.uint16)
    for number, layer in enumerate(layers):
        if not layer.shown[t]:
            continue
        placed = place(layer.sprite.shape[:2], layer.poses[t], layer.fields[t], SIZE_HW)
        if placed is None:
            continue
        seen = placed.apply(layer.at(t))
        alpha = seen[..., 3:]
        rgb = cv2.convertScaleAbs(seen[..., :3] * layer.gains[t])
        part = frame[placed.window]
        share = alpha.astype(np.float32) / 255
        part[:] = (part * (1 - share) + rgb * share + 0.5).astype(np.uint8)
        owner[placed.window][alpha[..., 0] > 127] = _LAYER + number
    return frame, owner


def _choose(
    rng: np.random.Generator, owner: npt.NDArray[np.uint16], *, from_base: bool
) -> list[int]:
    """Owners that a sequence asks for, of those that are seen on its first frame."""
    found, counts = np.unique(owner, return_counts=True)
    share = counts / owner.size
    keep = (found != _BASE) & (share >= _FIRST_SHARE) & (share < 0.75)
    if not from_base:
        keep &= found >= _LAYER
    candidates, odds = found[keep], np.sqrt(share[keep])
    if not len(candidates):
        return []
    count = min(len(candidates), 1 if rng.random() < 0.2 else OBJECTS)
    drawn = rng.choice(len(candidates), size=count, replace=False, p=odds / odds.sum())
    return [int(candidates[i]) for i in drawn]


def _look_at(rng: np.random.Generator, pose: Pose, ids: Labels) -> Pose:
    """The pose with an object of the ground image near the middle of the frame."""
    values, counts = np.unique(ids, return_counts=True)
    keep = (values > 0) & (counts >= 0.002 * ids.size)
    if not keep.any():
        return pose
    odds = np.sqrt(counts[keep])
    chosen = int(rng.choice(values[keep], p=odds / odds.sum()))
    y, x = (float(v.mean()) for v in np.nonzero(ids == chosen))
    height, width = SIZE_HW
    placed = pose.matrix(ids.shape) @ np.array([x, y, 1.0])
    off_x, off_y = rng.uniform(-0.25, 0.25, 2) * (width, height)
    return replace(
        pose,
        x=pose.x + width / 2 + float(off_x) - float(placed[0] / placed[2]),
        y=pose.y + height / 2 + float(off_y) - float(placed[1] / placed[2]),
    )


def _recolored(rng: np.random.Generator, sprite: Sprite) -> Sprite:
    """The same again, as another thing of its kind: colors and shape a little changed."""
    rgb = cv2.convertScaleAbs(sprite[..., :3] * np.exp(rng.normal(0, 0.1, 3)).astype(np.float32))
    other = np.dstack([rgb, sprite[..., 3]])
    return np.ascontiguousarray(other[:, ::-1] if rng.random() < 0.5 else other)


def _crossing(rng: np.random.Generator, other: _Layer, layer: _Layer) -> _Layer:
    """A layer that moves with another one, and passes it from one side to the other."""
    sizes = [p.poses[0].scale * max(p.sprite.shape[:2]) for p in (other, layer)]
    angle = rng.normal(0, 0.4) + np.pi * rng.integers(2)
    way = float(rng.uniform(0.4, 1.0)) * sum(sizes) * np.array([np.cos(angle), np.sin(angle)])
    shares = np.linspace(0.5, -float(rng.uniform(0.2, 0.7)), len(other.poses))
    poses = [
        replace(own, x=beside.x + float(share * way[0]), y=beside.y + float(share * way[1]))
        for own, beside, share in zip(other.poses, layer.poses, shares, strict=True)
    ]
    return replace(other, poses=poses)


def _motion_blur(rng: np.random.Generator, image: Image) -> Image:
    length = int(rng.integers(3, 11))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    middle = (length - 1) / 2
    offset = np.array([np.cos(angle), np.sin(angle)]) * middle
    start, end = np.rint(middle - offset).astype(int), np.rint(middle + offset).astype(int)
    cv2.line(kernel, tuple(start.tolist()), tuple(end.tolist()), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)
