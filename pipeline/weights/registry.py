"""Registry of published checkpoints: download, import and cache.

`weights.yaml` is the registry. Checkpoints are downloaded to the cache folder, or imported from a
file that was fetched elsewhere, both atomically. torch is imported by `Registry.import_file` only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import yaml

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.weights.cache import cache_folder

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and the total (None: unknown)."""

_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20
_TORCH_MAGIC = (b"PK", b"\x80")  # a zip, or a pickle of torch before 1.6

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published checkpoint.

    name: in commands and configurations. architecture: name of its network. file: its name in the
    cache. sha256: in hex; it and `size_bytes` are None where no trustworthy value is known.
    license: SPDX identifier. source: the authors' repository. commercial: whether the license
    allows commercial use.
    """

    name: str
    architecture: str
    file: str
    url: str
    size_bytes: int | None
    sha256: str | None
    license: str
    source: str
    commercial: bool = True

    @property
    def terms(self) -> str:
        """The license, and whether it is limited to non-commercial use."""
        return self.license if self.commercial else f"{self.license} (non-commercial)"


def tensors_digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Hash (16 hex digits) of a state dict's keys and shapes, independent of their order."""
    lines = sorted(f"{key} {list(shape)}" for key, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Known names similar to a name, at most three."""
    return get_close_matches(name.lower().replace("_", "-"), known, 3, 0.8)


class Registry:
    """Published checkpoints and the folder that caches them.

    architectures: `tensors_digest` of each architecture's state dict, by its name.
    """

    def __init__(
        self,
        checkpoints: tuple[Checkpoint, ...],
        architectures: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._checkpoints = {checkpoint.name: checkpoint for checkpoint in checkpoints}
        self.architectures = dict(architectures)
        self.folder = folder

    @classmethod
    def published(cls) -> Registry:
        """The registry of `weights.yaml`, with the user's cache."""
        rows = yaml.safe_load(Path(__file__).with_name("weights.yaml").read_text("utf-8"))
        checkpoints = (Checkpoint(name, **row) for name, row in rows["checkpoints"].items())
        return cls(tuple(checkpoints), rows["architectures"], cache_folder("weights"))

    def entries(self) -> tuple[Checkpoint, ...]:
        """All checkpoints, in the registry's order."""
        return tuple(self._checkpoints.values())

    def entry(self, name: str) -> Checkpoint:
        """A checkpoint by name. Raises `ModelError` if there is none of that name."""
        if name not in self._checkpoints:
            known = ", ".join(self._checkpoints)
            near = near_names(name, list(self._checkpoints))
            hint = f"did you mean {' or '.join(near)}? There" if near else "there"
            raise ModelError(f"There is no checkpoint called {name!r}; {hint} are {known}.")
        return self._checkpoints[name]

    def url_of(self, name: str) -> str:
        """The authors' URL of a checkpoint. Raises `ModelError` as `entry`."""
        return self.entry(name).url

    def path_of(self, name: str) -> Path:
        """Path of a checkpoint in the cache, whether or not it exists.

        Raises `ModelError` if there is no checkpoint of that name.
        """
        return self.folder / self.entry(name).file

    def identify(self, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """The architecture whose state dict has these keys and shapes; None if none has."""
        digest = tensors_digest(shapes)
        names = (name for name, known in self.architectures.items() if known == digest)
        return next(names, None)

    def get(self, name: str, progress: Progress | None = None) -> Path:
        """Path of a checkpoint, which is downloaded if it is not in the cache.

        An interrupted download is continued by the next call if the sha256 is known. Raises
        `ModelError` if the name is unknown, the network or the server fails, the file is not the
        published one, or the cache folder cannot be written.
        """
        entry, path = self.entry(name), self.path_of(name)
        if path.is_file():
            return path
        part = path.with_name(f"{path.name}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _download(entry, part, progress)
            _verify(entry, part)
            os.replace(part, path)
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def import_file(self, file: Path, name: str | None = None) -> Checkpoint:
        """Copy a checkpoint file into the cache; returns the checkpoint that it was identified as.

        It is identified by its keys and shapes and, if several checkpoints share them, by its
        sha256 or file name. `name` overrides this; then other weights of the same architecture (for
        example, fine-tuned ones) are accepted as well.

        Raises `ModelError` if the file is not a checkpoint, matches no architecture or not that of
        `name`, could be one of several, or the cache folder cannot be written.
        """
        architecture = self._architecture_of(file)
        sha256 = _sha256(file)
        entry = self._choose(file, architecture, sha256) if name is None else self.entry(name)
        if entry.architecture != architecture:
            raise ModelError(
                f"{file} holds the network {architecture}, and {entry.name} is of "
                f"{entry.architecture}."
            )
        if entry.sha256 not in (None, sha256):
            _log.warning("%s is not the published file of %s; imported unchanged", file, entry.name)
        path = self.path_of(entry.name)
        part = path.with_name(f"{path.name}.import")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(file, part)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return entry

    def _architecture_of(self, file: Path) -> str:
        from maskstream.pipeline.weights.checkpoints import load_checkpoint, shapes_of

        state = load_checkpoint(file)
        architecture = self.identify(shapes_of(state))
        if architecture is not None:
            return architecture
        known_names = ", ".join(self.architectures)
        raise ModelError(f"The {len(state)} tensors of {file} match none of {known_names}.")

    def _choose(self, file: Path, architecture: str, sha256: str) -> Checkpoint:
        candidates = [entry for entry in self.entries() if entry.architecture == architecture]
        for same in (
            [entry for entry in candidates if entry.sha256 == sha256],
            [entry for entry in candidates if entry.file == file.name],
            candidates,
        ):
            if len(same) == 1:
                return same[0]
        names = " or ".join(entry.name for entry in candidates)
        raise ModelError(f"{file} is a {architecture} network; say whether it is {names}.")

    def _unwritable(self, error: OSError) -> ModelError:
        return ModelError(
            f"The weights cannot be kept in {self.folder} ({error.strerror or error}). "
            "Set MASKSTREAM_CACHE to a writable folder with enough space."
        )


def _download(entry: Checkpoint, part: Path, progress: Progress | None) -> None:
    """Download a checkpoint to `part`, continuing a partial file.

    A partial file is only continued if its sha256 can be verified.
    """
    start = part.stat().st_size if entry.sha256 and part.exists() else 0
    response = _open(entry, start)
    if response is None:
        return
    with response:
        done = start if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        total = None if response.length is None else done + response.length
        with part.open("ab" if done else "wb") as out:
            while chunk := _read(entry, response):
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise _interrupted(entry, f"{done} of {total} bytes received")


def _open(entry: Checkpoint, start: int) -> Any:
    """Request the checkpoint from byte `start` on; the response's status says if it starts at 0.

    Returns None if there is nothing after `start`.
    """
    headers = {"User-Agent": "maskstream"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(entry.url, headers=headers)  # noqa: S310 (registry's https)
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except HTTPError as error:
        with error:
            if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None
            raise _unreachable(entry, f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _unreachable(entry, str(getattr(error, "reason", error))) from error


def _read(entry: Checkpoint, response: Any) -> bytes:
    try:
        chunk: bytes = response.read(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _interrupted(entry, str(error)) from error
    return chunk


def _verify(entry: Checkpoint, part: Path) -> None:
    """Delete `part` and raise `ModelError` if it is not the published file."""
    size = part.stat().st_size
    with part.open("rb") as file:
        is_torch = file.read(2).startswith(_TORCH_MAGIC)
    if entry.size_bytes not in (None, size):
        problem = f"{size} bytes instead of {entry.size_bytes}"
    elif entry.sha256 is not None and _sha256(part) != entry.sha256:
        problem = "its sha256 differs"
    elif entry.sha256 is None and not is_torch:
        problem = "it is not a torch file"
    else:
        return
    part.unlink()
    raise ModelError(
        f"The file from {entry.url} is not the published one ({problem}) and was deleted. "
        f"Try again; if that does not help, {_by_hand(entry)}"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _by_hand(entry: Checkpoint) -> str:
    return (
        f"fetch {entry.url} in another way or on another machine, and run: "
        f"maskstream weights import {entry.file}"
    )


def _unreachable(entry: Checkpoint, reason: str) -> ModelError:
    return ModelError(
        f"{entry.name} could not be downloaded ({reason}). Without a network, {_by_hand(entry)}"
    )


def _interrupted(entry: Checkpoint, reason: str) -> ModelError:
    again = "Run it again to continue it" if entry.sha256 else "Run it again"
    return ModelError(
        f"The download of {entry.name} was interrupted ({reason}). {again}, or {_by_hand(entry)}"
    )
