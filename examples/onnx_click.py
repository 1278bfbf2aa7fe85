"""Segment a picture from a click with exported ONNX files, without importing maskstream.

The files are made by `maskstream export-model lite -o lite-onnx`:

    python examples/onnx_click.py lite-onnx picture.jpg 320 200 mask.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime as ort


def main(folder: str, picture: str, x: str, y: str, mask_file: str) -> None:
    """Scale and pad the picture, encode, decode one click, write the best of three masks."""
    encoder, decoder = (ort.InferenceSession(f"{folder}/{n}.onnx") for n in ("encoder", "decoder"))
    about = encoder.get_modelmeta().custom_metadata_map
    side, multiple, cell = (int(about[key]) for key in ("long_side", "multiple", "cell"))
    rgb = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    scale = side / np.float32(rgb.shape[1::-1])  # x and y
    scale = scale if about["stretched"] == "true" else np.full(2, scale.min())
    size = np.round(scale * rgb.shape[1::-1]).astype(int)
    small = cv2.resize(rgb, size.tolist(), interpolation=cv2.INTER_AREA)
    h, w = (n + -n % multiple for n in small.shape[:2])
    image = np.full((1, h, w, 3), json.loads(about["pad_rgb"]), np.uint8)
    image[0, : small.shape[0], : small.shape[1]] = small
    names = [port.name for port in encoder.get_outputs()]
    given = dict(zip(names, encoder.run(None, {"image": image}), strict=True))
    grid = (np.mgrid[: h // cell, : w // cell][::-1].astype(np.float32) + 0.5) * cell / side
    click = (np.float32([x, y]) + 0.5) * scale / side
    given["xy"], given["labels"] = np.float32([[click, (0, 0)]]), np.float32([[1, -1]])  # padded
    given["grid"], given["mask"], given["has_mask"] = grid, 0 * grid[None, :1], np.float32([0])
    masks, score = decoder.run(None, {port.name: given[port.name] for port in decoder.get_inputs()})
    if about["score"] == "stability":
        score = (masks > 1).sum((2, 3)) / np.maximum((masks > -1).sum((2, 3)), 1)
    best = 1 + score[0, 1:].argmax()
    logits = cv2.resize(masks[0, best], (w, h))[: small.shape[0], : small.shape[1]]
    cv2.imwrite(mask_file, 255 * (cv2.resize(logits, rgb.shape[1::-1]) > 0).astype(np.uint8))
    print(f"{mask_file}: {about['score']} {score[0, best]:.2f}")


main(*sys.argv[1:]) if len(sys.argv) == 6 else sys.exit(__doc__)
