"""A session as JSON values for the page's script."""

from __future__ import annotations

from typing import Any

from pipeline.types import SourceInfo
from ui.session import Session


def session_json(session: Session, info: SourceInfo, frame_count: int) -> dict[str, Any]:
    """What the page shows of a session, but for pixels and jobs."""
    state = session.tracked_state
    height, width = info.size_hw
    return {
        "title": session.title,
        "width": width,
        "height": height,
        "frames": frame_count,
        "fps": float(info.rate or 25),
        "first": state.first,
        "last": frame_count - 1 if state.last is None else state.last,
        "objects": [
            {
                "id": known.id,
                "name": known.name,
                "colour": known.colour,
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
