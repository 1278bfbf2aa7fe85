"""The networks compute the published functions (see `reference.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from maskstream.pipeline.lab.bench.fill import filled
from maskstream.pipeline.segmenter.encoders import efficient_vit, plain_vit
from maskstream.pipeline.segmenter.encoders.efficient_vit import EfficientViTEncoder
from maskstream.pipeline.segmenter.encoders.plain_vit import PlainViTEncoder, ViTSize
from maskstream.pipeline.segmenter.encoders.rep_vit import RepViTEncoder
from maskstream.pipeline.segmenter.encoders.stretched_vit import (
    StretchedViTEncoder,
    StretchedViTSize,
)
from maskstream.pipeline.segmenter.encoders.tiny_vit import TinyViTEncoder
from maskstream.pipeline.segmenter.sam import BUILDERS, Sam, build
from maskstream.pipeline.weights.checkpoints import load_into
from maskstream.pipeline.weights.registry import Registry, tensors_digest
from tests.support.reference import (
    ARRAYS,
    MASK_PROMPT,
    TOLERANCE,
    Arrays,
    published_arrays,
    published_shapes,
    relative_error,
    reproduce,
    requires_reference,
)

pytestmark = pytest.mark.slow

PUBLISHED = [name for name in BUILDERS if not name.startswith("lite")]


@dataclass(frozen=True, slots=True)
class Reference:
    """A network and the name of its reference's files.

    always_three: as `reproduce` takes it. norm_eps: of layer and batch norms, if the reference was
    computed with others than the authors' own loader sets.
    """

    network: str
    file: str
    always_three: bool = False
    norm_eps: float | None = None

    def __str__(self) -> str:
        return self.network


REFERENCES = (
    Reference("tinysam", "tinysam", always_three=True),
    Reference("edge-sam", "edge_sam"),
    Reference("efficient-sam-ti", "efficient_sam_vitt"),
    Reference("efficient-sam-s", "efficient_sam_vits"),
    Reference("efficientvit-sam-l0", "efficientvit_sam_l0", norm_eps=1e-5),
    Reference("efficientvit-sam-xl0", "efficientvit_sam_xl0", norm_eps=1e-5),
    Reference("sam-vit-b", "sam_vit_b"),
)


def unfilled(name: str) -> Sam:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return build(name)


@pytest.fixture(scope="module", params=REFERENCES, ids=str)
def arrays(request: pytest.FixtureRequest) -> tuple[Arrays, Arrays]:
    """What our network computes, and what was published."""
    reference: Reference = request.param
    model = build(reference.network).eval()
    load_into(model, filled(model.state_dict()))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d) and reference.norm_eps is not None:
            module.eps = reference.norm_eps
    return reproduce(model, reference.always_three), published_arrays(reference.file)


@requires_reference
def test_reference_has_no_array_untested(arrays: tuple[Arrays, Arrays]) -> None:
    assert set(arrays[1]) == set(arrays[0])
    assert set(ARRAYS) - set(arrays[1]) in (set(), set(MASK_PROMPT))


@requires_reference
@pytest.mark.parametrize("array", ARRAYS)
def test_reference_array(array: str, arrays: tuple[Arrays, Arrays]) -> None:
    computed, published = arrays
    if array not in published:
        assert array in MASK_PROMPT
        return
    assert relative_error(computed[array], published[array]) < TOLERANCE


@requires_reference
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("tinysam", "tinysam"),
        ("mobilesam", "tinysam"),
        ("edge-sam", "edge_sam"),
        ("efficient-sam-ti", "efficient_sam_vitt"),
        ("efficient-sam-s", "efficient_sam_vits"),
        ("sam-vit-b", "sam_vit_b"),
        *(
            (f"efficientvit-sam-{size}", f"efficientvit_sam_{size}")
            for size in ("l0", "l1", "l2", "xl0", "xl1")
        ),
    ],
)
def test_reference_keys_and_shapes(name: str, file: str) -> None:
    state = unfilled(name).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published_shapes(file)


@pytest.mark.parametrize("entry", Registry.published().entries(), ids=lambda entry: entry.name)
def test_a_published_file_fits_the_network_of_its_name(entry) -> None:
    state = unfilled(entry.name).state_dict()
    digest = tensors_digest({key: tuple(value.shape) for key, value in state.items()})
    assert digest == Registry.published().architectures[entry.architecture]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("edge-sam", 9.6),
        ("efficientvit-sam-l0", 34.8),
        ("efficientvit-sam-l1", 47.7),
        ("efficientvit-sam-l2", 61.3),
        ("efficientvit-sam-xl0", 117.0),
        ("efficientvit-sam-xl1", 203.3),
        ("sam-vit-h", 641.1),
    ],
)
def test_as_many_parameters_as_published(name: str, millions: float) -> None:
    count = sum(parameter.numel() for parameter in unfilled(name).parameters())
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "efficientvit" in name])
def test_norms_have_the_epsilon_that_the_authors_set_when_they_load(name: str) -> None:
    norms = [m for m in unfilled(name).modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(
    ("encoder", "s8", "s16"),
    [
        (TinyViTEncoder(), (8, 128), (16, 160)),
        (EfficientViTEncoder(efficient_vit.SIZES["l0"]), (8, 128), (16, 256)),
        (PlainViTEncoder(ViTSize(32, 8, 2)), (16, 32), (16, 32)),
        (RepViTEncoder(), (8, 96), (16, 192)),
        (StretchedViTEncoder(StretchedViTSize(32, 2)), (16, 32), (16, 32)),
    ],
    ids=["tinyvit", "efficientvit", "vit", "repvit", "stretched-vit"],
)
@pytest.mark.parametrize("cells", [(4, 4), (3, 7), (7, 1)])
def test_features_have_their_strides_at_any_multiple(encoder, s8, s16, cells) -> None:
    h, w = (n * encoder.multiple for n in cells)
    with torch.no_grad():
        features = encoder.eval().all_features(torch.zeros(1, 3, h, w))
    stride = encoder.stride
    assert features.embedding.shape == (1, 256, h // stride, w // stride)
    for found, (step, channels) in ((features.s8, s8), (features.s16, s16)):
        assert found.shape == (1, channels, h // step, w // step)


@pytest.mark.parametrize("size", plain_vit.SIZES.values(), ids=list(plain_vit.SIZES))
def test_four_blocks_of_a_vit_are_global(size: ViTSize) -> None:
    assert len(size.global_blocks) == 4
    assert size.global_blocks[-1] == size.depth - 1


def test_a_smaller_image_has_the_positions_of_the_padded_squares_top_left_part() -> None:
    encoder = PlainViTEncoder(ViTSize(32, 8, 2)).eval()
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for block in encoder.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        whole = encoder.all_features(image).s16
        part = encoder.all_features(image[..., :112, :]).s16
    torch.testing.assert_close(part, whole[..., :7, :])
