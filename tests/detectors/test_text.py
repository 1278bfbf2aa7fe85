"""Words as prompts, by a GroundingDINO that transformers makes here, tiny and untrained.

That needs the extra `text`; without it (as in the development environment) it is skipped.
"""

from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from maskstream.pipeline.detectors.text import TextDetector
from maskstream.pipeline.sources.arrays import ArraySource

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "dog", "red", "car", "the"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    backbone = transformers.SwinConfig(
        embed_dim=16,
        depths=[1] * 4,
        num_heads=[1] * 4,
        image_size=64,
        window_size=4,
        out_indices=[2, 3, 4],
    )
    words = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        vocab_size=len(WORDS),
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=words,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=10,
    )
    images = transformers.GroundingDinoImageProcessor(
        size={"shortest_edge": 96, "longest_edge": 128}
    )
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    return folder


def test_owlv2_numbers_its_phrases_and_is_given_them():
    """Its processor's facts, of transformers 5: it takes `text_labels` and gives them back."""
    asked = {}

    class Processor:
        def __call__(self, **given):
            asked["text"] = given["text"]
            return {}

        def post_process_grounded_object_detection(self, outputs, **given):
            asked.update(given)
            values = {"boxes": np.float32([[1, 2, 30, 40]]), "scores": np.float32([0.5])}
            return [values | {"labels": np.array([1]), "text_labels": ["a red car"]}]

    detector = TextDetector.__new__(TextDetector)  # transformers and weights cannot be had here
    detector.labels, detector._score_min = ("a dog", "a red car"), 0.3
    detector._processor = Processor()
    detector._torch = SimpleNamespace(inference_mode=nullcontext)

    class Network:
        config = SimpleNamespace(model_type="owlv2")

        def __call__(self):
            return None

    detector._network = Network()
    image = np.zeros((90, 160, 3), np.uint8)
    with ArraySource([image], Fraction(25)).open() as reader:
        (found,) = detector.detect(next(iter(reader)))
    assert (found.xyxy, found.label, found.score) == ((1, 2, 30, 40), "a red car", 0.5)
    phrases = [["a dog", "a red car"]]
    target = {"target_sizes": [(90, 160)], "threshold": 0.3}
    assert asked == {"text": phrases, "text_labels": phrases, **target}


def test_words_give_boxes_inside_the_image_with_the_phrases_as_labels(weights):
    detector = TextDetector(weights, "a dog. A red car", score_min=0.0)
    assert detector.labels == ("a dog", "a red car")
    image = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    with ArraySource([image], Fraction(25)).open() as reader:
        found = detector.detect(next(iter(reader)))
    assert len(found) == 10
    assert {each.label for each in found} <= {"a dog", "a red car"}
    middles = np.array([each.xyxy for each in found]).reshape(-1, 2, 2).mean(1)
    assert ((middles > 0) & (middles < [160, 90])).all()
    assert all(0 <= each.score <= 1 for each in found)
