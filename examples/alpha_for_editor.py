"""Write one object as ProRes 4444 with alpha, as Premiere, Resolve and After Effects open it.

    python examples/alpha_for_editor.py clip.zarr clip.mov 1

The last argument is an object's number or name; without it all objects are opaque. The pixels come
from the video that the store was made from; give another place of it as `video`.
"""

import sys

import maskstream
from maskstream.pipeline.exports.edges import Edges


def main(store: str, movie: str, objects: str | None = None) -> None:
    """Export, read back and compared with the store."""
    choice = maskstream.ExportChoice(
        "prores",
        objects=objects,
        edges=Edges(remove_islands_px=50, soft=True),  # the edge follows the image
        overwrite=True,
    )
    summary = maskstream.export(store, movie, choice)
    print(f"{movie}: {summary.frames} frames, worst IoU as read back {summary.worst_iou:.3f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except maskstream.MaskstreamError as error:
        sys.exit(f"error: {error}")
