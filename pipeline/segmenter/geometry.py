"""Geometry of a frame in the network's input: scaled to the long side, padded right and below.

Only the valid rows and columns (rounded up to the network's multiple) are encoded; prompt
coordinates are normalized by the side of the padded square, as in SAM.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipeline.types import RgbImage, SizeHW

FloatMap = npt.NDArray[np.float32]

GRID_STRIDE = 4  # input pixels per cell of low-res logits, by default


@dataclass(frozen=True, slots=True)
class InputGeometry:
    """Maps a displayed frame of `frame_hw` to the input of a network and its logits back.

    valid_hw: size of the scaled frame in the input. input_hw: with padding to the network's
    multiple. side: of the square that normalizes coordinates. cell: input pixels per cell of the
    low-res logits.
    """

    frame_hw: SizeHW
    valid_hw: SizeHW
    input_hw: SizeHW
    side: int
    cell: int = GRID_STRIDE

    @classmethod
    def fit(
        cls,
        frame_hw: SizeHW,
        long_side: int,
        multiple: int,
        cell: int = GRID_STRIDE,
        *,
        stretched: bool = False,
    ) -> InputGeometry:
        """Fit a frame into `long_side` pixels; stretched: into the whole square, aspect lost."""
        if stretched:
            square = (long_side, long_side)
            return cls(frame_hw, square, square, long_side, cell)
        scale = long_side / max(frame_hw)
        h, w = (max(1, round(n * scale)) for n in frame_hw)
        padded = (h + -h % multiple, w + -w % multiple)
        return cls(frame_hw, (h, w), padded, long_side, cell)

    @property
    def grid_hw(self) -> SizeHW:
        """Size of the low-resolution logits."""
        return self.input_hw[0] // self.cell, self.input_hw[1] // self.cell

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Input pixels for each displayed pixel."""
        return self.valid_hw[1] / self.frame_hw[1], self.valid_hw[0] / self.frame_hw[0]

    def normalize(self, xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Displayed coordinates [..., 2] (pixel edges at integers) to 0..1 of the square."""
        return np.asarray(xy * np.array(self.scale_xy) / self.side, np.float32)

    def pad(self, rgb: RgbImage, fill: tuple[int, int, int]) -> RgbImage:
        """Pad an image of `valid_hw` to `input_hw` with the color that normalizes to zero."""
        if self.valid_hw == self.input_hw:
            return rgb
        canvas = np.empty((*self.input_hw, 3), np.uint8)
        canvas[:] = fill
        canvas[: self.valid_hw[0], : self.valid_hw[1]] = rgb
        return canvas

    def cell_centers(self) -> FloatMap:
        """Normalized centers of the low-resolution cells, [2, 4h, 4w] (x, y)."""
        h, w = self.grid_hw
        x = (np.arange(w, dtype=np.float32) + 0.5) * self.cell / self.side
        y = (np.arange(h, dtype=np.float32) + 0.5) * self.cell / self.side
        return np.stack(np.broadcast_arrays(x[None, :], y[:, None])).astype(np.float32)

    def to_size(self, logits: FloatMap, size_hw: SizeHW) -> FloatMap:
        """Resample logits [4h, 4w] of the input to `size_hw` over the displayed frame."""
        return _resample(logits, self._grid_from(size_hw), size_hw)

    def from_size(self, logits: FloatMap) -> FloatMap:
        """Resample logits over the displayed frame to the grid [4h, 4w] of a mask prompt."""
        height, width = logits.shape
        inverse = cv2.invertAffineTransform(self._grid_from((height, width)))
        return _resample(logits, np.asarray(inverse, np.float64), self.grid_hw)

    def _grid_from(self, size_hw: SizeHW) -> npt.NDArray[np.float64]:
        """Affine map from pixels of the frame at `size_hw` to cells of the grid."""
        sx = self.valid_hw[1] / size_hw[1] / self.cell
        sy = self.valid_hw[0] / size_hw[0] / self.cell
        return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5]])


def _resample(logits: FloatMap, matrix: npt.NDArray[np.float64], size_hw: SizeHW) -> FloatMap:
    out = cv2.warpAffine(
        logits,
        matrix,
        (size_hw[1], size_hw[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(out, np.float32)


def deepest(mask: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """The pixel (x, y) of a mask [H, W] farthest from its border, and its distance.

    Outside the image counts as outside the mask. (0, 0, 0.0) if the mask is empty.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return 0, 0, 0.0
    part = np.pad(mask[y : y + height, x : x + width].view(np.uint8), 1)
    # DIST_MASK_PRECISE is not deterministic in its last bits (OpenCV 5.0), which decide ties.
    depth = cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_5)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return x + int(column) - 1, y + int(row) - 1, float(depth[row, column])


def boxes_of(masks: npt.NDArray[np.bool_]) -> FloatMap:
    """Tight boxes xyxy [B, 4] of masks [B, H, W], in cells; the whole grid where one is empty."""
    _, height, width = masks.shape
    boxes = np.tile(np.array([0, 0, width, height], np.float32), (len(masks), 1))
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
