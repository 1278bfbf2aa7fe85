"""How the layers of a training sequence move: poses by frame, and smooth local deformation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]

GRID = 12  # cells a side of a deformation field


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a layer is on a frame.

    x, y: center in frame pixels. scale: frame pixels for each of the layer's. angle: radians.
    squeeze: width by height, negative when mirrored. shear: of x by y. tilt: perspective, change
    of scale across the layer (x, y).
    """

    x: float
    y: float
    scale: float
    angle: float = 0.0
    squeeze: float = 1.0
    shear: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)

    def matrix(self, size_hw: tuple[int, int]) -> Vector:
        """Homography [3, 3] from the pixels of a layer of this size to the frame's."""
        height, width = size_hw
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        linear = self.scale * turn @ np.array([[self.squeeze, self.shear], [0.0, 1.0]])
        place = np.eye(3)
        place[:2, :2] = linear
        place[:2, 2] = (self.x, self.y)
        view = np.eye(3)
        view[2, :2] = (self.tilt[0] / width, self.tilt[1] / height)
        center = np.eye(3)
        center[:2, 2] = (-(width - 1) / 2, -(height - 1) / 2)
        return np.asarray(place @ view @ center, np.float64)


@dataclass(frozen=True, slots=True)
class Pace:
    """How much a layer changes from one frame to the next (standard deviations).

    shift: share of the frame's width. scale, squeeze: logarithm. angle: radians. bend: growth of
    the deformation, share of the layer's size.
    """

    shift: float
    scale: float
    angle: float
    squeeze: float
    bend: float

    def times(self, factor: float) -> Pace:
        """All of it so many times as fast."""
        return Pace(*(factor * getattr(self, name) for name in self.__slots__))


def draw_pace(rng: np.random.Generator) -> Pace:
    """A pace between nearly still and a keyframe distance of fast sport."""
    fast = float(np.exp(rng.uniform(np.log(0.15), np.log(1.6))))
    return Pace(0.045, 0.08, 0.09, 0.10, 0.035).times(fast)


def draw_poses(
    rng: np.random.Generator,
    first: Pose,
    pace: Pace,
    count: int,
    *,
    width: int,
    leap: float,
) -> list[Pose]:
    """Poses of `count` frames: a drift that lasts, and jitter; the step after the first frame is
    `leap` times as long, as from the prompt to a frame much later.
    """
    drift = rng.normal(0, 1, 5)
    poses = [first]
    for t in range(1, count):
        size = leap if t == 1 else 1.0
        shift, scale, angle, squeeze = (
            size * (0.75 * drift[i] + 0.65 * rng.normal()) for i in range(4)
        )
        direction = np.arctan2(drift[4], drift[0]) + rng.normal(0, 0.4)
        last = poses[-1]
        length = abs(shift) * pace.shift * width
        flat = float(np.clip(np.log(abs(last.squeeze)) + squeeze * pace.squeeze, -1.0, 0.25))
        mirrored = np.sign(last.squeeze) * (-1 if t == 1 and rng.random() < 0.08 * leap else 1)
        log_scale = np.clip(scale * pace.scale, -0.7, 0.7)
        poses.append(
            replace(
                last,
                x=last.x + float(np.cos(direction)) * length,
                y=last.y + 0.6 * float(np.sin(direction)) * length,
                scale=last.scale * float(np.exp(log_scale)),
                angle=last.angle + angle * pace.angle,
                squeeze=float(mirrored * np.exp(flat)),
                shear=float(np.clip(last.shear + rng.normal(0, 0.25) * pace.angle, -0.4, 0.4)),
                tilt=(
                    float(np.clip(last.tilt[0] + rng.normal() * pace.squeeze, -0.35, 0.35)),
                    float(np.clip(last.tilt[1] + rng.normal() * pace.squeeze, -0.35, 0.35)),
                ),
            )
        )
    return poses


def draw_fields(
    rng: np.random.Generator, pace: Pace, count: int, *, leap: float, hinges: int
) -> list[Map]:
    """Displacements by frame, float32 [GRID, GRID, 2], in shares of the layer's size.

    A random walk of smooth noise, and parts that turn about hinges, as limbs do.
    """
    noise = np.zeros((GRID, GRID, 2), np.float32)
    joints = [_Hinge.draw(rng) for _ in range(hinges)]
    angles = np.zeros(hinges)
    speed = rng.normal(0, 1, hinges)
    fields = []
    for t in range(count):
        size = leap if t == 1 else 1.0
        if t:
            noise = noise + np.float32(size * pace.bend) * _smooth_noise(rng)
            step = size * (0.7 * speed + 0.7 * rng.normal(0, 1, hinges))
            angles = np.clip(angles + 4.5 * pace.angle * step, -1.1, 1.1)
        field = noise.copy()
        for joint, angle in zip(joints, angles, strict=True):
            field += joint.displacement(float(angle))
        fields.append(np.clip(field, -0.45, 0.45).astype(np.float32))
    return fields


@dataclass(frozen=True, slots=True)
class _Hinge:
    """A line through a pivot, in shares of the layer's size; what is beyond it turns."""

    pivot: Vector
    normal: Vector
    softness: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Hinge:
        angle = rng.uniform(0, 2 * np.pi)
        normal = np.array([np.cos(angle), np.sin(angle)])
        pivot = 0.5 + normal * rng.uniform(-0.05, 0.22) + rng.normal(0, 0.08, 2)
        return cls(pivot, normal, float(rng.uniform(0.03, 0.1)))

    def displacement(self, angle: float) -> Map:
        y, x = np.mgrid[0:GRID, 0:GRID] / (GRID - 1)
        place = np.stack([x, y], -1) - self.pivot
        beyond = 1 / (1 + np.exp(-(place @ self.normal) / self.softness))
        cos, sin = np.cos(angle) - 1, np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        return np.asarray(beyond[..., None] * (place @ turn.T), np.float32)


def _smooth_noise(rng: np.random.Generator) -> Map:
    coarse = rng.normal(0, 1, (4, 4, 2)).astype(np.float32)
    fine = cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine, np.float32)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the pixels of a window of a frame come from in a layer.

    window: rows and columns of the frame. from_x, from_y: float32 [h, w], pixels of the layer.
    blur: standard deviation by which a layer that shrinks is smoothed, 0 for none.
    """

    window: tuple[slice, slice]
    from_x: Map
    from_y: Map
    blur: float

    def apply(
        self,
        layer: npt.NDArray[np.uint8],
        *,
        nearest: bool = False,
        border: int = cv2.BORDER_CONSTANT,
    ) -> npt.NDArray[np.uint8]:
        """The layer uint8 [H, W, C] or [H, W] as it lies in the window."""
        if self.blur and not nearest:
            layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), self.blur), np.uint8)
        how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        return np.asarray(cv2.remap(layer, self.from_x, self.from_y, how, None, border), np.uint8)


def place(
    layer_hw: tuple[int, int],
    pose: Pose,
    field: Map | None,
    size_hw: tuple[int, int],
    *,
    everywhere: bool = False,
) -> Placement | None:
    """Place a layer in a frame of `size_hw`; None: it is nowhere in it.

    field: deformation in the layer's coordinates. everywhere: the window is the whole frame.
    """
    height, width = layer_hw
    matrix = pose.matrix(layer_hw)
    window: tuple[slice, slice] | None = (slice(0, size_hw[0]), slice(0, size_hw[1]))
    if not everywhere:
        reach = 0.0 if field is None else float(np.abs(field).max())
        window = _window(matrix, layer_hw, reach, size_hw)
    if window is None:
        return None
    rows, columns = window
    inverse = np.linalg.inv(matrix).astype(np.float32)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    below = 1 / (inverse[2, 0] * x + (inverse[2, 1] * y + inverse[2, 2]))
    from_x = (inverse[0, 0] * x + (inverse[0, 1] * y + inverse[0, 2])) * below
    from_y = (inverse[1, 0] * x + (inverse[1, 1] * y + inverse[1, 2])) * below
    if field is not None:
        cell_x = from_x * np.float32((GRID - 1) / max(1, width - 1))
        cell_y = from_y * np.float32((GRID - 1) / max(1, height - 1))
        moved = cv2.remap(field, cell_x, cell_y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        from_x -= moved[..., 0] * np.float32(width)
        from_y -= moved[..., 1] * np.float32(height)
    shrink = pose.scale * min(1.0, abs(pose.squeeze))
    blur = min(8.0, 0.4 / max(shrink, 0.02)) if shrink < 0.7 else 0.0
    return Placement(window, from_x, from_y, blur)


def _window(
    matrix: Vector, layer_hw: tuple[int, int], reach: float, size_hw: tuple[int, int]
) -> tuple[slice, slice] | None:
    height, width = layer_hw
    more_x, more_y = reach * width + 2, reach * height + 2
    corners = np.array(
        [[x, y, 1.0] for x in (-more_x, width - 1 + more_x) for y in (-more_y, height - 1 + more_y)]
    )
    placed = corners @ matrix.T
    if (placed[:, 2] <= 0.1).any():
        return slice(0, size_hw[0]), slice(0, size_hw[1])
    xy = placed[:, :2] / placed[:, 2:]
    (left, top), (right, bottom) = np.floor(xy.min(0)), np.ceil(xy.max(0)) + 1
    rows = slice(max(0, int(top)), min(size_hw[0], int(bottom)))
    columns = slice(max(0, int(left)), min(size_hw[1], int(right)))
    if rows.stop - rows.start < 2 or columns.stop - columns.start < 2:
        return None
    return rows, columns
