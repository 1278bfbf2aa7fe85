"""maskstream: objects in video, followed frame by frame on two CPU cores."""

from pathlib import Path

if not (Path(__file__).parent / "pipeline").is_dir():
    # A checkout: there the packages lie beside this folder, in a wheel within it.
    __path__.append(str(Path(__file__).parent.parent))
