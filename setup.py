"""Where the packages lie; everything else about the distribution is in pyproject.toml.

In the repository `pipeline/`, `trackers/` and `ui/` are folders of the top level. Installed, they
are packages within `maskstream`, and `configs/` is a folder of it.
"""

from setuptools import find_packages, setup

INNER = ("pipeline", "trackers", "ui")
found = find_packages(include=[pattern for name in INNER for pattern in (name, f"{name}.*")])
setup(
    packages=["maskstream", "maskstream.configs", *(f"maskstream.{name}" for name in found)],
    package_dir={f"maskstream.{name}": name for name in (*INNER, "configs")},
)
