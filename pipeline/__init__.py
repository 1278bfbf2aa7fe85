"""maskstream: objects in video, followed frame by frame on two CPU cores."""
