"""The registry of checkpoints, against a real server on the loopback interface."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from maskstream.pipeline.errors import ModelError
from maskstream.pipeline.weights.cache import cache_folder
from maskstream.pipeline.weights.registry import Checkpoint, Registry, tensors_digest
from tests.support.reference import published_shapes, requires_reference

BODY = b"PK" + bytes(range(256)) * 40_000  # ten chunks, as a file of torch begins
SHA256 = hashlib.sha256(BODY).hexdigest()
CUT_AT = 4_000_000
TINY_SHAPES = {"weight": (2, 3)}
ARCHITECTURES = {"tiny": tensors_digest(TINY_SHAPES), "lone": tensors_digest({"w": (1,)})}


class Handler(BaseHTTPRequestHandler):
    """Serves BODY at /file, and misbehaves at the other paths."""

    seen_ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.seen_ranges.append(wanted)
        start = int(re.sub(r"\D", "", wanted)) if wanted and self.path != "/no_range" else 0
        if self.path == "/missing":
            self.send_error(404)
        elif start >= len(BODY):
            self.send_error(416)
        else:
            self.send_response(206 if start else 200)
            if self.path != "/no_length":
                self.send_header("Content-Length", str(len(BODY) - start))
            self.end_headers()
            cut = CUT_AT if self.path == "/cut" and not start else None
            self.wfile.write(BODY[start:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    Handler.seen_ranges.clear()


def checkpoint(
    url: str = "https://example.org/tiny.pth",
    name: str = "tiny-a",
    architecture: str = "tiny",
    size_bytes: int | None = len(BODY),
    sha256: str | None = SHA256,
) -> Checkpoint:
    return Checkpoint(
        name, architecture, f"{name}.pth", url, size_bytes, sha256, "Apache-2.0", "example.org"
    )


def registry(folder: Path, *checkpoints: Checkpoint) -> Registry:
    return Registry(checkpoints, ARCHITECTURES, folder)


@pytest.mark.parametrize("path", ["file", "no_range", "no_length"])
def test_get_downloads_once(tmp_path: Path, server: str, path: str) -> None:
    weights = registry(tmp_path / "new" / "cache", checkpoint(f"{server}/{path}"))
    steps: list[tuple[int, int | None]] = []

    got = weights.get("tiny-a", lambda done, total: steps.append((done, total)))

    assert got == weights.path_of("tiny-a")
    assert got.read_bytes() == BODY
    assert steps == sorted(steps)
    assert steps[-1] == (len(BODY), None if path == "no_length" else len(BODY))
    assert [file.name for file in got.parent.iterdir()] == ["tiny-a.pth"]
    assert weights.get("tiny-a") == got
    assert len(Handler.seen_ranges) == 1


def test_a_cut_download_is_continued(tmp_path: Path, server: str) -> None:
    weights = registry(tmp_path, checkpoint(f"{server}/cut"))
    with pytest.raises(ModelError, match=f"{CUT_AT} of {len(BODY)} bytes.*again to continue"):
        weights.get("tiny-a")
    assert not weights.path_of("tiny-a").exists()

    assert weights.get("tiny-a").read_bytes() == BODY
    assert Handler.seen_ranges == [None, f"bytes={CUT_AT}-"]


@pytest.mark.parametrize(
    ("path", "there"),
    [
        pytest.param("file", BODY, id="all_there_already"),
        pytest.param("no_range", BODY[:CUT_AT], id="server_starts_anew"),
    ],
)
def test_a_part_left_behind(tmp_path: Path, server: str, path: str, there: bytes) -> None:
    (tmp_path / "tiny-a.pth.part").write_bytes(there)
    weights = registry(tmp_path, checkpoint(f"{server}/{path}"))
    assert weights.get("tiny-a").read_bytes() == BODY


def test_what_no_sha256_proves_is_not_continued(tmp_path: Path, server: str) -> None:
    (tmp_path / "tiny-a.pth.part").write_bytes(b"of another version")
    weights = registry(tmp_path, checkpoint(f"{server}/file", sha256=None))
    assert weights.get("tiny-a").read_bytes() == BODY
    assert Handler.seen_ranges == [None]


@pytest.mark.parametrize(
    ("entry", "there", "problem"),
    [
        ({"sha256": "0" * 64}, b"", "sha256 differs"),
        ({"size_bytes": 5}, b"", f"{len(BODY)} bytes instead of 5"),
        ({}, b"damaged", "sha256 differs"),
        ({"size_bytes": None}, BODY + b"more", "sha256 differs"),
    ],
)
def test_another_file_is_deleted(
    tmp_path: Path, server: str, entry: dict[str, Any], there: bytes, problem: str
) -> None:
    if there:
        (tmp_path / "tiny-a.pth.part").write_bytes(there)
    weights = registry(tmp_path, checkpoint(f"{server}/file", **entry))
    with pytest.raises(ModelError, match=problem):
        weights.get("tiny-a")
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_is_no_checkpoint(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.BODY", b"<html>Please log in to this network</html>")
    weights = registry(tmp_path, checkpoint(f"{server}/file", size_bytes=None, sha256=None))
    with pytest.raises(ModelError, match="not a torch file"):
        weights.get("tiny-a")
    assert list(tmp_path.iterdir()) == []


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("reachable", "reason"), [(True, "404 Not Found"), (False, "Connection refused")]
)
def test_no_way_to_the_file_says_how_to_bring_it(
    tmp_path: Path, server: str, reachable: bool, reason: str
) -> None:
    url = f"{server if reachable else closed_port()}/missing"
    weights = registry(tmp_path, checkpoint(url))
    with pytest.raises(ModelError) as caught:
        weights.get("tiny-a")
    sentence = str(caught.value)
    assert reason in sentence
    assert url in sentence
    assert "maskstream weights import tiny-a.pth" in sentence


def test_a_cache_that_cannot_be_written(tmp_path: Path, server: str) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    weights = registry(tmp_path / "cache", checkpoint(f"{server}/file"))
    with pytest.raises(ModelError, match="Set MASKSTREAM_CACHE"):
        weights.get("tiny-a")
    with pytest.raises(ModelError, match="Set MASKSTREAM_CACHE"):
        weights.import_file(saved(tmp_path / "download.pth"), "tiny-a")


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'sam'; there are tiny-a"):
        registry(tmp_path, checkpoint()).path_of("sam")


def saved(path: Path, **tensors: torch.Tensor) -> Path:
    torch.save(tensors or {"weight": torch.ones(2, 3), "pixel_mean": torch.ones(3)}, path)
    return path


@pytest.mark.parametrize(
    ("file_name", "name", "taken_for"),
    [
        ("download.pth", None, "tiny-b"),  # by its sha256
        ("tiny-a.pth", None, "tiny-b"),  # which counts more than the file name
        ("download.pth", "tiny-a", "tiny-a"),  # as told
    ],
)
def test_import_by_sha256(tmp_path: Path, file_name: str, name: str | None, taken_for: str) -> None:
    file = saved(tmp_path / file_name)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = registry(tmp_path / "cache", checkpoint(), checkpoint(name="tiny-b", sha256=sha256))
    assert weights.import_file(file, name).name == taken_for
    assert weights.path_of(taken_for).read_bytes() == file.read_bytes()
    assert [kept.name for kept in weights.folder.iterdir()] == [f"{taken_for}.pth"]
    assert weights.get(taken_for) == weights.path_of(taken_for)


@pytest.mark.parametrize(
    ("file_name", "tensors", "taken_for"),
    [
        ("tiny-b.pth", {}, "tiny-b"),  # by the file name, among those of its architecture
        ("any.pth", {"w": torch.ones(1)}, "lone"),  # the only one of its architecture
    ],
)
def test_import_by_content(
    tmp_path: Path, file_name: str, tensors: dict[str, torch.Tensor], taken_for: str
) -> None:
    weights = registry(
        tmp_path / "cache",
        checkpoint(),
        checkpoint(name="tiny-b"),
        checkpoint(name="lone", architecture="lone"),
    )
    assert weights.import_file(saved(tmp_path / file_name, **tensors)).name == taken_for


@pytest.mark.parametrize(
    ("tensors", "name", "reason"),
    [
        ({}, None, "say whether it is tiny-a or tiny-b"),
        ({"weight": torch.ones(3, 2)}, None, "match none of tiny, lone"),
        ({"w": torch.ones(1)}, "tiny-a", "holds the network lone, and tiny-a is of tiny"),
    ],
)
def test_import_refuses(
    tmp_path: Path, tensors: dict[str, torch.Tensor], name: str | None, reason: str
) -> None:
    weights = registry(tmp_path / "cache", checkpoint(), checkpoint(name="tiny-b"))
    with pytest.raises(ModelError, match=reason):
        weights.import_file(saved(tmp_path / "any.pth", **tensors), name)
    assert not weights.folder.exists()


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    assert cache_folder("weights") == tmp_path / "weights"
    assert Registry.published().path_of("mobilesam") == tmp_path / "weights" / "mobile_sam.pt"
    monkeypatch.delenv("MASKSTREAM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("weights") == tmp_path / ".cache" / "maskstream" / "weights"


@pytest.mark.parametrize("entry", Registry.published().entries(), ids=lambda entry: entry.name)
def test_published_entry(entry: Checkpoint) -> None:
    assert entry.url.startswith("https://")
    assert entry.url.endswith(f"/{entry.file}")
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.size_bytes is None or entry.size_bytes > 1_000_000
    assert entry.license == ("Apache-2.0" if entry.commercial else "LicenseRef-S-Lab-1.0")
    assert ("non-commercial" in entry.terms) == (entry.name == "edge-sam")
    assert entry.source.startswith("https://github.com/")


def vit_shapes(
    dim: int, depth: int, heads: int, global_blocks: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """SAM's other ViTs (paper 2304.02643), made from the published shapes of its ViT-B."""
    prefix = "image_encoder.blocks."
    widths = {768: dim, 2304: 3 * dim, 3072: 4 * dim}
    shapes = {}
    for key, shape in published_shapes("sam_vit_b").items():
        scaled = tuple(widths.get(n, n) for n in shape)
        if not key.startswith(prefix):
            shapes[key] = scaled if key.startswith("image_encoder.") else shape
            continue
        of_block, _, rest = key.removeprefix(prefix).partition(".")
        if "rel_pos" in rest:
            scaled = (shape[0], dim // heads)
        for block in range(depth):
            if of_block == ("2" if block in global_blocks else "0"):
                shapes[f"{prefix}{block}.{rest}"] = scaled
    return shapes


@requires_reference
def test_reference_architectures_are_recognized() -> None:
    names = [f"efficientvit_sam_{size}" for size in ("l0", "l1", "l2", "xl0", "xl1")]
    shapes = {name: published_shapes(name) for name in names} | {
        "vit_t": published_shapes("tinysam"),
        "edge_sam": published_shapes("edge_sam"),
        "efficient_sam_ti": published_shapes("efficient_sam_vitt"),
        "efficient_sam_s": published_shapes("efficient_sam_vits"),
        "vit_b": published_shapes("sam_vit_b"),
        "vit_l": vit_shapes(1024, 24, 16, (5, 11, 17, 23)),
        "vit_h": vit_shapes(1280, 32, 16, (7, 15, 23, 31)),
    }
    assert vit_shapes(768, 12, 12, (2, 5, 8, 11)) == shapes["vit_b"]

    published = Registry.published()
    assert {a: tensors_digest(s) for a, s in shapes.items()} == published.architectures
    assert {entry.architecture for entry in published.entries()} == set(shapes)


def test_the_registry_is_read_without_torch() -> None:
    code = (
        "import sys; from maskstream.pipeline.weights.registry import Registry; "
        "Registry.published().entries(); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
