"""Generated clips with exact masks, one for each difficulty of tracking.

Positions are pixels of a 480x270 frame, speeds are pixels per frame at 30 frames per second: an
object crosses the frame in two to four seconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from maskstream.pipeline.lab.evaluation.video.clips import ArrayTruth, Clip, ClipEntry
from maskstream.pipeline.lab.evaluation.video.rendering import Actor, Lens, Pose, Shot, View, render
from maskstream.pipeline.lab.evaluation.video.sprites import SPRITE_PX, Images, Sprite
from maskstream.pipeline.sources.arrays import ArraySource

SIZE_HW = (270, 480)
FRAMES = 48
RATE = 30
_WORLD_HW = (450, 800)  # of the background; the frame is at its center
_ORIGIN = ((_WORLD_HW[1] - SIZE_HW[1]) / 2, (_WORLD_HW[0] - SIZE_HW[0]) / 2)
_LAST = FRAMES - 1

_PLAIN = Lens()

PoseAt = Callable[[float], Pose | None]


@dataclass(frozen=True, slots=True)
class Scene:
    """The shots of a clip, and the camera's lens and frame rate."""

    shots: tuple[Shot, ...]
    lens: Lens = _PLAIN
    rate: int = RATE


class Set:
    """Supplies the sprites and backgrounds of a scene, drawn one after the other."""

    def __init__(self, images: Images, rng: np.random.Generator) -> None:
        self._images = images
        self._rng = rng

    def sprite(self) -> Sprite:
        """The next object."""
        return self._images.sprite(self._rng)

    def shot(
        self,
        *actors: Actor,
        frames: range = range(FRAMES),
        view: Callable[[float], View] | None = None,
    ) -> Shot:
        """A shot over the next background; without a `view` the camera is static."""
        ground = self._images.background(self._rng, _WORLD_HW)
        return Shot(frames, ground, view or (lambda _: View(*_middle())), actors)

    def pillar(self, width: int) -> Sprite:
        """An upright strip of another background, higher than the frame."""
        strip = self._images.background(self._rng, (2 * SPRITE_PX, width))
        opaque = np.ones((*strip.shape[:2], 1), np.float32)
        return np.concatenate([strip.astype(np.float32) / 255, opaque], 2)


def generated_clips(images: Images, *, seed: int = 0) -> tuple[ClipEntry, ...]:
    """The clips, by name; they are rendered when they are loaded.

    The same images and seed give the same clips.
    """
    return tuple(_entry(name, build, images, seed) for name, build in _SCENES.items())


def _entry(name: str, build: Callable[[Set], Scene], images: Images, seed: int) -> ClipEntry:
    def load() -> Clip:
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        scene = build(Set(images, rng))
        frames, masks = [], []
        for shot in scene.shots:
            shown, labels = render(shot, SIZE_HW, scene.lens, rng)
            frames += shown
            masks += labels
        return Clip(ArraySource(frames, Fraction(scene.rate)), ArrayTruth(np.stack(masks)))

    return ClipEntry(name, load)


def _translation(stage: Set) -> Scene:
    return Scene((stage.shot(*_two_walkers(stage)),))


def _scale(stage: Set) -> Scene:
    near = _straight((170, 120), (205, 150), 55, 165)
    far = _straight((380, 160), (350, 105), 125, 50)
    return Scene((stage.shot(Actor(stage.sprite(), 2, far), Actor(stage.sprite(), 1, near)),))


def _rotation(stage: Set) -> Scene:
    rolling = _moved(_straight((130, 150), (190, 130), 120), lambda t: {"angle": 4.0 * t})
    swinging = _moved(
        _straight((360, 120), (340, 145), 95), lambda t: {"angle": 40 * np.sin(t / 7)}
    )
    return Scene((stage.shot(_actor(stage, 1, rolling), _actor(stage, 2, swinging)),))


def _deformation(stage: Set) -> Scene:
    first = _moved(_straight((120, 140), (180, 130), 130), lambda t: {"bend": 0.08, "phase": t / 5})
    second = _moved(
        _straight((350, 140), (330, 120), 105), lambda t: {"bend": 0.06, "phase": -t / 4}
    )
    return Scene((stage.shot(_actor(stage, 1, first), _actor(stage, 2, second)),))


def _occluder(stage: Set) -> Scene:
    walker = _actor(stage, 1, _straight((75, 140), (405, 130), 85))
    bystander = _actor(stage, 2, _straight((420, 45), (410, 50), 70))
    middle = _at(240, SIZE_HW[0] / 2)
    pillar = Actor(stage.pillar(110), 0, lambda _: Pose(*middle, 2 * SPRITE_PX))
    return Scene((stage.shot(bystander, walker, pillar),))


def _crossing(stage: Set) -> Scene:
    one = stage.sprite()
    other = np.ascontiguousarray(one[:, ::-1])
    rightwards = Actor(one, 1, _straight((90, 130), (390, 130), 105))
    leftwards = Actor(other, 2, _straight((390, 150), (90, 150), 105))
    return Scene((stage.shot(rightwards, leftwards),))


def _leaving(stage: Set) -> Scene:
    def x(time: float) -> float:
        return float(np.interp(time, [0, 18, 28, 46], [330, 575, 575, 340]))

    walker = _actor(stage, 1, lambda t: Pose(*_at(x(t), 140 + 8 * np.sin(t / 5)), 105))
    other = _actor(stage, 2, _straight((120, 160), (170, 130), 95))
    return Scene((stage.shot(walker, other),))


def _entering(stage: Set) -> Scene:
    def x(time: float) -> float:
        return float(np.interp(time, [0, 6, 46], [560, 560, 250]))

    walker = _actor(stage, 1, lambda t: Pose(*_at(x(t), 150 + 8 * np.sin(t / 5)), 110))
    other = _actor(stage, 2, _straight((120, 110), (150, 120), 95))
    return Scene((stage.shot(walker, other),))


def _pan(stage: Set) -> Scene:
    rng = np.random.default_rng(0)
    shake = np.cumsum(rng.normal(0, 0.5, (FRAMES + 1, 2)), 0)

    def view(time: float) -> View:
        x, y = _middle()
        dx, dy = shake[int(time)]
        return View(x - 90 + 4.0 * time + dx, y + 10 - 0.4 * time + dy, 1 + 0.003 * time)

    first = _actor(stage, 1, _straight((90, 150), (330, 120), 115))
    second = _actor(stage, 2, _straight((255, 110), (370, 190), 80))
    return Scene((stage.shot(first, second, view=view),))


def _cut(stage: Set) -> Scene:
    actors = _two_walkers(stage)
    before = stage.shot(*actors, frames=range(18))
    elsewhere = stage.shot(frames=range(18, 30))
    after = replace(before, frames=range(30, FRAMES))
    return Scene((before, elsewhere, after))


def _blur(stage: Set) -> Scene:
    def fast(time: float) -> Pose:
        return Pose(*_at(240 + 130 * np.sin(time / 8), 100 + 25 * np.cos(time / 8)), 100)

    first = _actor(stage, 1, fast)
    second = _actor(stage, 2, _straight((110, 210), (370, 215), 80))
    return Scene((stage.shot(second, first),), Lens(shutter=0.7, samples=5))


def _low_light(stage: Set) -> Scene:
    return Scene((stage.shot(*_two_walkers(stage)),), Lens(exposure=0.35, noise=5.0))


def _stride(stage: Set) -> Scene:
    """Every second frame of a clip of 30 frames per second."""

    def there_and_back(time: float) -> Pose:
        return Pose(*_at(240 - 140 * np.cos(time / 7.5), 130 + 30 * np.sin(time / 5)), 110)

    second = _moved(_straight((370, 200), (110, 210), 80), lambda t: {"angle": 25 * np.sin(t / 3)})
    return Scene((stage.shot(_actor(stage, 2, second), _actor(stage, 1, there_and_back)),), rate=15)


_SCENES: dict[str, Callable[[Set], Scene]] = {
    "translation": _translation,
    "scale": _scale,
    "rotation": _rotation,
    "deformation": _deformation,
    "occluder": _occluder,
    "crossing": _crossing,
    "leaving": _leaving,
    "entering": _entering,
    "pan": _pan,
    "cut": _cut,
    "blur": _blur,
    "low-light": _low_light,
    "stride": _stride,
}
SCENES = tuple(_SCENES)
"""Names of the generated clips."""


def _two_walkers(stage: Set) -> tuple[Actor, Actor]:
    near = _actor(stage, 1, _straight((110, 185), (350, 175), 110))
    far = _actor(stage, 2, _straight((390, 65), (220, 75), 75))
    return far, near


def _actor(stage: Set, label: int, pose: PoseAt) -> Actor:
    return Actor(stage.sprite(), label, pose)


def _straight(
    start: tuple[float, float], end: tuple[float, float], size: float, last: float | None = None
) -> Callable[[float], Pose]:
    """From `start` to `end` within the clip, bobbing slightly; size from `size` to `last`."""

    def pose(time: float) -> Pose:
        share = time / _LAST
        x = start[0] + share * (end[0] - start[0])
        y = start[1] + share * (end[1] - start[1]) + 3 * np.sin(0.6 * time)
        grown = size * ((last or size) / size) ** share
        return Pose(*_at(x, y), grown, 3 * np.sin(0.3 * time))

    return pose


def _moved(
    pose: Callable[[float], Pose], more: Callable[[float], dict[str, float]]
) -> Callable[[float], Pose]:
    """A pose with some of its values replaced."""
    return lambda time: replace(pose(time), **more(time))


def _at(x: float, y: float) -> tuple[float, float]:
    """World coordinates of a pixel of the static camera's frame."""
    return x + _ORIGIN[0], y + _ORIGIN[1]


def _middle() -> tuple[float, float]:
    return _WORLD_HW[1] / 2, _WORLD_HW[0] / 2
