"""Generated clips: the same each time, with masks that are where the objects are seen."""

import cv2
import numpy as np
import pytest

from maskstream.pipeline.lab.evaluation.video.generated import (
    FRAMES,
    SCENES,
    SIZE_HW,
    generated_clips,
)
from maskstream.pipeline.lab.evaluation.video.rendering import Actor, Lens, Pose, Shot, View, render
from maskstream.pipeline.lab.evaluation.video.sprites import (
    SPRITE_PX,
    FolderImages,
    SpriteImages,
)

QUIET = Lens(noise=0)


@pytest.fixture(scope="module")
def load():
    entries = {entry.name: entry for entry in generated_clips(SpriteImages())}
    cache = {}

    def loaded(name):
        if name not in cache:
            clip = entries[name].load()
            cache[name] = (np.stack(list(clip.source.frames)), clip.truth.masks)
        return cache[name]

    return loaded


def plate(color, size=40):
    """An opaque square sprite."""
    return np.broadcast_to(np.float32([*color, 1]), (size, size, 4)).copy()


def shot_of(*actors, frames=range(2), ground=0):
    world = np.full((60, 100, 3), ground, np.uint8)
    return Shot(frames, world, lambda _: View(50, 30), actors)


def rendered(shot, lens=QUIET):
    frames, masks = render(shot, (60, 100), lens, np.random.default_rng(0))
    return np.stack(frames), np.stack(masks)


def test_masks_are_where_the_object_is_seen_to_a_pixel():
    actor = Actor(plate((1, 0, 0)), 1, lambda t: Pose(49.3 + 3.27 * t, 29.2, 20))
    frames, masks = rendered(shot_of(actor, frames=range(3)))
    for frame, mask in zip(frames, masks, strict=True):
        assert np.array_equal(frame[..., 0] > 127, mask == 1)
    moved = [np.argwhere(mask)[:, 1].mean() for mask in masks]
    assert np.diff(moved) == pytest.approx([3.27, 3.27], abs=0.5)
    assert (masks == 1).sum((1, 2)) == pytest.approx(400, rel=0.12)
    assert set(np.unique(frames[1][..., 0])) - {0, 255}  # edges are antialiased


def test_what_lies_in_front_hides_and_what_has_no_label_is_background():
    behind = Actor(plate((1, 0, 0)), 1, lambda _: Pose(45, 30, 20))
    front = Actor(plate((0, 1, 0)), 2, lambda _: Pose(55, 30, 20))
    cover = Actor(plate((0, 0, 1)), 0, lambda _: Pose(60, 30, 10))
    frames, masks = rendered(shot_of(behind, front, cover))
    assert (masks[0][30, 40], masks[0][30, 50], masks[0][30, 60]) == (1, 2, 0)
    assert frames[0][30, 60, 2] > 200


def test_an_open_shutter_blurs_along_the_motion():
    actor = Actor(plate((1, 1, 1)), 1, lambda t: Pose(40.3 + 12 * t, 30.2, 20))
    sharp, _ = rendered(shot_of(actor))
    blurred, masks = rendered(shot_of(actor), Lens(noise=0, shutter=1, samples=5))
    steps = [np.abs(np.diff(f[0][30, :, 0].astype(int))).max() for f in (sharp, blurred)]
    assert steps[1] < 0.5 * steps[0]
    assert np.array_equal(blurred[0][..., 0] > 127, masks[0] == 1)


def test_clips_are_the_same_each_time_and_of_the_agreed_size(load):
    frames, masks = load("cut")
    again = {e.name: e for e in generated_clips(SpriteImages())}["cut"].load()
    assert np.array_equal(np.stack(list(again.source.frames)), frames)
    assert np.array_equal(again.truth.masks, masks)
    assert frames.shape == (FRAMES, *SIZE_HW, 3)
    assert masks.shape == (FRAMES, *SIZE_HW)
    assert set(np.unique(masks)) == {0, 1, 2}


def seen(masks, number):
    return (masks == number).any((1, 2))


def test_scenes_do_what_they_are_called(load):
    hidden = ~seen(load("occluder")[1], 1)
    assert 3 <= hidden.sum() <= 12
    assert not hidden[[0, -1]].any()
    away = ~seen(load("leaving")[1], 1)
    assert 10 <= away.sum() <= 24
    assert not away[[0, -1]].any()
    frames, masks = load("cut")
    assert (~seen(masks, 1)).nonzero()[0].tolist() == list(range(18, 30))
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3))
    assert np.argsort(change)[-2:].tolist() in ([17, 29], [29, 17])
    _, masks = load("crossing")
    first, second = (np.argwhere(masks[-1] == n)[:, 1].mean() for n in (1, 2))
    assert first > second  # they have passed each other
    assert (masks[FRAMES // 2] == 1).sum() < 0.6 * (masks[0] == 1).sum()


def test_there_is_a_scene_for_each_thing_that_can_happen():
    assert tuple(entry.name for entry in generated_clips(SpriteImages())) == SCENES
    assert len(SCENES) == 13


def test_images_of_a_folder_are_cut_out(tmp_path):
    cutouts, source = tmp_path / "train" / "stamps" / "cutouts", tmp_path / "train" / "photos"
    for folder in (cutouts, source / "images", source / "masks", tmp_path / "backgrounds"):
        folder.mkdir(parents=True)
    stamp = np.zeros((40, 60, 4), np.uint8)
    stamp[5:35, 10:50] = (0, 0, 250, 255)  # BGRA: red
    cv2.imwrite(str(cutouts / "red.webp"), stamp)
    photo = np.full((80, 80, 3), 30, np.uint8)
    photo[20:60, 20:60] = (0, 250, 0)
    labels = np.zeros((80, 80), np.uint8)
    labels[20:60, 20:60] = 1
    cv2.imwrite(str(source / "images" / "a.jpg"), photo)
    cv2.imwrite(str(source / "masks" / "a.png"), labels)
    cv2.imwrite(str(tmp_path / "backgrounds" / "blue.jpg"), np.full((30, 90, 3), (250, 0, 0)))
    images = FolderImages(tmp_path)
    rng = np.random.default_rng(0)
    sprites = [images.sprite(rng) for _ in range(8)]
    assert {max(sprite.shape[:2]) for sprite in sprites} == {SPRITE_PX}
    middles = {int(s[s.shape[0] // 2, s.shape[1] // 2, :3].argmax()) for s in sprites}
    assert middles == {0, 1}  # the red cut-out and the green labeled object
    ground = images.background(rng, (50, 70))
    assert ground.shape == (50, 70, 3)
    assert ground[..., 2].min() > 200
