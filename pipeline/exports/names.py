"""Templates of file names: `{source}_{object}_{frame:06d}`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter

from maskstream.pipeline.errors import ConfigError
from maskstream.pipeline.exports.frames import ExportObject

_FIELDS = ("source", "object", "frame")
_UNFIT = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """Makes file names without suffix. source: a name that is valid in file names.

    Raises:
        ConfigError: the template has unknown fields, or points outside the folder.
    """

    template: str
    source: str

    def __post_init__(self) -> None:
        try:
            fields = [field for _, field, _, _ in Formatter().parse(self.template) if field]
            unknown = [field for field in fields if field not in _FIELDS]
            example = PurePosixPath(self.of(0, "object"))
        except (ValueError, KeyError, IndexError) as error:
            raise ConfigError(f"The template {self.template!r} is malformed: {error}.") from error
        if unknown:
            raise ConfigError(
                f"The template {self.template!r} has a field {{{unknown[0]}}}; there are "
                f"{', '.join(f'{{{field}}}' for field in _FIELDS)}."
            )
        if not example.name or example.is_absolute() or ".." in example.parts:
            raise ConfigError(f"The template {self.template!r} must name a file in the folder.")

    def of(self, number: int, object_name: str = "") -> str:
        """The name for a frame, and for an object if each has its own file."""
        return self.template.format(source=self.source, object=object_name, frame=number)

    def require(self, *fields: str) -> None:
        """Raise `ConfigError` unless the template distinguishes frames (and objects)."""
        used = {field for _, field, _, _ in Formatter().parse(self.template)}
        for field in fields:
            if field not in used:
                raise ConfigError(
                    f"The template {self.template!r} would give several files one name; it needs "
                    f"{{{field}}}."
                )


def source_name(name: str) -> str:
    """A source's name without folder and suffix, valid in file names."""
    return fit(Path(name).stem) or "video"


def fit(text: str) -> str:
    """Make text valid in file names: letters, digits, `_`, `-` and `.`, no leading dot."""
    return _UNFIT.sub("_", text).strip("_").lstrip(".")


def object_names(objects: Sequence[ExportObject]) -> dict[int, str]:
    """Unique file-name parts by object id: the object's name, else its id."""
    names: dict[int, str] = {}
    taken = {str(chosen.id) for chosen in objects}
    for chosen in objects:
        name = fit(chosen.name)
        if not name:
            name = str(chosen.id)
        elif name in taken:
            name = f"{name}_{chosen.id}"
        taken.add(name)
        names[chosen.id] = name
    return names
