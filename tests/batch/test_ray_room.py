"""How many actors the nodes of a Ray cluster have room for; Ray itself is not needed."""

import pytest

from maskstream.pipeline.batch.on_ray import RayPlace, room_of
from maskstream.pipeline.errors import ClusterError

HEAD = {"memory": 1e9}
PLAIN = {"CPU": 7.0}
TWO_GPUS = {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("cores", "gpus", "nodes", "room"),
    [
        (2, 0.0, [HEAD, PLAIN, PLAIN], 6),  # a core of each is left
        (2, 0.25, [HEAD, PLAIN, TWO_GPUS], 8),
        (4, 0.25, [TWO_GPUS], 4),
        (1, 0.1, [TWO_GPUS], 16),
        (1, 0.4, [TWO_GPUS], 4),  # two in each GPU
        (1, 2.0, [TWO_GPUS, TWO_GPUS], 2),
    ],
)
def test_room_is_that_of_each_node(cores, gpus, nodes, room):
    assert room_of(nodes, RayPlace(None, cores, gpus)) == room


@pytest.mark.parametrize(
    ("cores", "gpus", "words"),
    [
        (17, 0.0, "has 16 cores, fewer than --per-video-cores 17"),
        (1, 3.0, "no node with 1 cores and --gpu-share 3: at most 2 GPUs"),
    ],
)
def test_what_no_node_has_is_a_sentence(cores, gpus, words):
    with pytest.raises(ClusterError, match=words):
        room_of([HEAD, PLAIN, TWO_GPUS], RayPlace(None, cores, gpus))
