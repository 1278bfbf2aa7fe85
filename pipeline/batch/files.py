"""Files of a batch by path or URL: opened, listed, fetched to the worker's disk, and sent."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from maskstream.pipeline.addresses import is_url, masked
from maskstream.pipeline.errors import SourceError, SourceNotFoundError, StoreError
from maskstream.pipeline.extras import need
from maskstream.pipeline.json_values import JsonObject
from maskstream.pipeline.sources.identity import identity_of_opened

_BLOCK_BYTES = 4 << 20  # read at once of a remote file
SUCCESS = "_SUCCESS"
"""Object that is written last into a folder of a bucket, as Hadoop and Spark do."""
_INSTALL = "pip install 'maskstream[remote]'"


def is_folder(target: str) -> bool:
    """Whether there is a folder of this path or URL. Raises `SourceError`."""
    if is_url(target):
        with _as_source_error(target):
            return bool(filesystem(target).isdir(target))
    return Path(target).is_dir()


def exists(target: str) -> bool:
    """Whether there is a file or folder of this path or URL. Raises `SourceError`."""
    if is_url(target):
        with _as_source_error(target):
            return bool(filesystem(target).exists(target))
    return Path(target).exists()


def modified_s(target: str) -> float | None:
    """When a file or folder was written, seconds since 1970; None if it is not there.

    None also of a URL whose service does not say. Raises `SourceError`.
    """
    try:
        if not is_url(target):
            return Path(target).stat().st_mtime
        files = filesystem(target)
        files.invalidate_cache()
        with _as_source_error(target), suppress(NotImplementedError):
            return float(files.modified(target).timestamp())
    except (FileNotFoundError, SourceNotFoundError):
        pass
    return None


def join(folder: str, name: str) -> str:
    """`name` as seen from a folder or URL; as it is if it is a URL or an absolute path."""
    if is_url(name) or name.startswith("/") or folder in ("", "."):
        return name
    return f"{folder.rstrip('/')}/{name}"


def filesystem(url: str) -> Any:
    """The fsspec file system of a URL. Raises `SourceError`, `MissingExtraError`."""
    fsspec = need("fsspec", f"{urlsplit(url).scheme}://", _INSTALL)
    try:
        return fsspec.filesystem(urlsplit(url).scheme)
    except (ImportError, ValueError) as error:
        raise SourceError(
            f"{masked(url)} cannot be opened: {error}; {_INSTALL} brings S3, other services need "
            "their own fsspec package."
        ) from error


@contextmanager
def opened(target: str) -> Iterator[BinaryIO]:
    """Open a file to read. Raises `OSError`, `SourceError`."""
    if not is_url(target):
        with Path(target).open("rb") as local:
            yield local
        return
    with filesystem(target).open(target, "rb") as remote:
        yield remote


def find_urls(pattern: str) -> list[str]:
    """URLs that match a pattern, sorted. Raises `SourceError`, `SourceNotFoundError`."""
    files = filesystem(pattern)
    scheme = urlsplit(pattern).scheme
    try:
        found = sorted(f"{scheme}://{path.lstrip('/')}" for path in files.glob(pattern))
    except Exception as error:
        raise SourceError(f"{masked(pattern)} cannot be listed: {error}") from error
    if not found:
        raise SourceNotFoundError(f"Nothing matches {masked(pattern)}.")
    return found


def remote_identity(url: str) -> JsonObject:
    """Identity of a remote file (`identity_of`), of which two MiB are read.

    Raises `SourceNotFoundError`, `SourceError`.
    """
    with _as_source_error(url), filesystem(url).open(url, "rb", cache_type="none") as file:
        return identity_of_opened(file)


def path_of(url: str) -> PurePosixPath:
    """The path of a URL, whose last part is the name of its file."""
    return PurePosixPath(urlsplit(url).path)


def remote_size(url: str) -> int:
    """Bytes of a remote file; 0 if the service does not say. Raises `SourceError`."""
    with _as_source_error(url):
        return int(filesystem(url).info(url)["size"] or 0)


class RemoteFile(io.RawIOBase):
    """A remote file that is read by range, as FFmpeg reads and seeks. Raises `SourceError`.

    A connection that breaks is an error here; FFmpeg itself would take it for the end of the video.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        with _as_source_error(url):
            self._file = filesystem(url).open(url, "rb", block_size=_BLOCK_BYTES)

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """See `io.RawIOBase`."""
        with _as_source_error(self._url):
            return bytes(self._file.read(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """See `io.IOBase`."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """See `io.IOBase`."""
        return int(self._file.tell())

    def close(self) -> None:
        """See `io.IOBase`."""
        self._file.close()
        super().close()


def fetch(url: str, folder: Path) -> Path:
    """Copy a remote file into a local folder; returns the copy.

    Raises:
        SourceNotFoundError: there is no such file. SourceError: it cannot be fetched, or is larger
            than the disk's free space.
    """
    files = filesystem(url)
    place = folder / path_of(url).name
    with _as_source_error(url):
        size = remote_size(url)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise SourceError(
                f"{masked(url)} has {size >> 20} MiB, but {folder} has room for {free >> 20}: give "
                "--scratch on a larger disk."
            )
        files.get_file(url, str(place))
    return place


def send(place: Path, url: str) -> None:
    """Copy a local file or folder to a URL, replacing what is there. Raises `StoreError`.

    A folder is whole if it holds `_SUCCESS`, which is removed first and written last.
    """
    files = filesystem(url)
    if place.is_dir():
        remove(join(url, SUCCESS))
        remove(url)
    try:
        if place.is_dir():
            files.put(f"{place}/", f"{url}/", recursive=True)
            files.pipe_file(join(url, SUCCESS), b"")
        else:
            files.put_file(str(place), url)
    except Exception as error:
        raise StoreError(f"{masked(url)} cannot be written: {error}") from _os_error(error)


def remove(target: str) -> None:
    """Remove a folder, or a file of a URL, if it is there. Raises `StoreError`."""
    if not is_url(target):
        shutil.rmtree(target, ignore_errors=True)
        return
    files = filesystem(target)
    files.invalidate_cache()
    try:
        files.rm(target, recursive=True)
    except FileNotFoundError:
        return
    except Exception as error:
        raise StoreError(f"{masked(target)} cannot be removed: {error}") from _os_error(error)


def _os_error(error: Exception) -> OSError:
    """The exception of a storage service as the operating system's, by which it is tried again."""
    return error if isinstance(error, OSError) else ConnectionError(str(error))


@contextmanager
def _as_source_error(url: str) -> Iterator[None]:
    """Convert the exceptions of a storage service to `SourceError`."""
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no file {masked(url)}.") from error
    except Exception as error:
        raise SourceError(f"{masked(url)} cannot be read: {error}") from _os_error(error)
