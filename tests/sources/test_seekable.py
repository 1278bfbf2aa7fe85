"""Frames of videos and images asked for by number."""

import numpy as np
import pytest

from maskstream.pipeline.errors import SourceError
from maskstream.pipeline.sources.seekable import open_seekable
from tests.support.media import moving_shapes, read, write_images, write_video

COUNT, START = 9, 1001


@pytest.fixture
def frames():
    return moving_shapes(COUNT, (24, 32))[0]


def test_images_keep_their_numbers(tmp_path, frames):
    images = open_seekable(write_images(tmp_path / "shot", frames, start=START))
    assert images.numbers == range(START, START + COUNT)
    for number in (START + 5, START, START + COUNT - 1, START + 5):
        found = images.frame(number)
        assert found.index == number
        assert np.array_equal(found.rgb(), frames[number - START])
    ahead = read(images.between(START + 2, START + 4))[2]
    back = read(images.backwards(START + 2, START + 4))[2]
    assert [f.index for f in ahead] == [START + 2, START + 3, START + 4]
    assert [f.index for f in back] == [f.index for f in ahead][::-1]
    assert all(np.array_equal(f.rgb(), frames[f.index - START]) for f in back)
    images.close()


def test_images_in_memory_are_bounded(tmp_path, frames, monkeypatch):
    monkeypatch.setattr("maskstream.pipeline.sources.seekable.CACHE_PIXELS", 2 * 3 * 24 * 32)
    images = open_seekable(write_images(tmp_path / "shot", frames))
    for number in images.numbers:
        images.frame(number)
    assert len(images._cache) == 3


def test_videos_are_opened_too(tmp_path, frames):
    video = open_seekable(write_video(tmp_path / "clip.mp4", frames))
    assert video.numbers == range(COUNT)
    assert video.frame(4).index == 4
    video.close()


BAD = [
    pytest.param({0, 1, 3}, "has no image number 2", id="gap"),
    pytest.param(set(), "images", id="none"),
]


@pytest.mark.parametrize(("numbers", "sentence"), BAD)
def test_images_that_cannot_be_edited_are_a_sentence(tmp_path, frames, numbers, sentence):
    folder = write_images(tmp_path / "shot", frames)
    for number in set(range(COUNT)) - numbers:
        (folder / f"{number}.png").unlink()
    with pytest.raises(SourceError, match=sentence):
        open_seekable(folder)


def test_an_image_of_another_size_or_number_is_a_sentence(tmp_path, frames):
    folder = write_images(tmp_path / "shot", frames)
    write_images(folder, [frames[0][:10]], start=4)
    images = open_seekable(folder)
    with pytest.raises(SourceError, match="of one size"):
        images.frame(4)
    with pytest.raises(SourceError, match="no image number 99"):
        images.frame(99)
