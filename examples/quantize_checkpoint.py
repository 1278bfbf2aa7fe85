"""Quantize a checkpoint to an INT8 model folder, on your own images (pip install '.[train]').

    python examples/quantize_checkpoint.py tinysam_42.3.pth clip.mp4 tinysam-int8

The second argument is a video or a folder of images like those that the model will see. A model
that is less accurate than the gate asks, or slower than FP32, is refused with the figures.
"""

import sys
from pathlib import Path

import maskstream
from maskstream.pipeline.models.checkpoint import load_network
from maskstream.pipeline.quantization.calibration import calibration_images
from maskstream.pipeline.quantization.gate import Gate
from maskstream.pipeline.quantization.quantize import quantize, write_folder


def main(checkpoint: str, images: str, folder: str) -> None:
    """Quantize, judge, write, and open what was written."""
    made = quantize(
        load_network(Path(checkpoint)),  # its keys tell which network it holds
        calibration_images(Path(images), 64),  # every other one calibrates, the others judge
        gate=Gate(mask_iou_min=0.97),
        source=Path(checkpoint).name,
        report=print,
    )
    write_folder(made, Path(folder))
    print(f"mask IoU with FP32 {made.comparison.mask_iou:.3f}")
    print(maskstream.open_model(folder, (720, 1280)).card.name, "opens for frames of 1280x720")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except maskstream.MaskstreamError as error:
        sys.exit(f"error: {error}")
