"""A session as JSON values for the page's script."""

from __future__ import annotations

from typing import Any

from maskstream.pipeline.types import SourceInfo
from maskstream.ui.editing.session import Session


def session_json(session: Session, info: SourceInfo, frames: range) -> dict[str, Any]:
    """What the page shows of a session, but for pixels and jobs. frames: numbers of the video's."""
    state = session.tracked_state
    height, width = info.size_hw
    return {
        "title": session.title,
        "width": width,
        "height": height,
        "start": frames.start,
        "end": frames[-1],
        "frames": len(frames),
        "fps": float(info.rate or 25),
        "first": max(state.first, frames.start),
        "last": frames[-1] if state.last is None else state.last,
        "objects": [
            {
                "id": known.id,
                "name": known.name,
                "colour": known.color,
                "visible": known.visible,
                "locked": known.locked,
                "anchors": [
                    {
                        "frame": anchor.frame,
                        "via": anchor.via,
                        "clicks": [[c.x, c.y, c.label] for c in anchor.clicks],
                        "box": anchor.box_xyxy,
                        "candidates": len(anchor.candidates),
                        "chosen": anchor.chosen % len(anchor.candidates),
                    }
                    for anchor in known.anchors.values()
                ],
            }
            for known in state.objects.values()
        ],
        "can_undo": session.position > 0,
        "can_redo": session.position < len(session.log),
        "store": state.store,
    }
