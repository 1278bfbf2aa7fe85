"""Model folders for tests."""

from pathlib import Path

import yaml

from maskstream.pipeline.quantization.export import architecture_of, export
from maskstream.pipeline.segmenter.openvino_runtime import ov
from maskstream.pipeline.segmenter.sam import Sam


def write_fp32_folder(model: Sam, folder: Path, long_side: int) -> Path:
    """Write a network as a model folder in FP32."""
    encoder, decoder = export(model)
    folder.mkdir()
    ov.save_model(encoder, folder / "encoder.xml", compress_to_fp16=False)
    ov.save_model(decoder, folder / "decoder.xml", compress_to_fp16=False)
    card = architecture_of(model) | {"long_side": long_side, "method": "fp32"}
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return folder
