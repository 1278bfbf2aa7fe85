"""maskstream: objects in video, followed frame by frame on two CPU cores."""

import sys

# OpenVINO and NNCF report over the network what is done with them, unasked, and keep a number of
# their user's. Where this package cannot be imported they do not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
