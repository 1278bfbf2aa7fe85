"""Free the batch axis of encoder graphs, which are traced with one image."""

from __future__ import annotations

import numpy as np

from maskstream.pipeline.segmenter.openvino_runtime import opset, ov

_TRIED = (2, 256, 256)  # images, height and width for which a graph's shapes are inferred


def with_free_batch(graph: ov.Model) -> ov.Model | None:
    """A copy of an encoder's graph that takes any number of images; None if that cannot be had.

    A Reshape to a shape whose first length is the one image of the trace copies its input's first
    length instead, or, where windows were cut out of the images, infers it. Whether that
    suffices is checked by the shapes of the outputs for two images.
    """
    copy = graph.clone()
    try:
        _free_all(copy)
        return copy if _keeps_batch(copy) else None
    except RuntimeError:  # shapes that do not fit together
        return None


def _free_all(graph: ov.Model) -> None:
    """Free the batch of the input and of every Reshape. Raises `RuntimeError`."""
    reshapes = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Reshape"]
    whole = [_has_one_image(node.input_value(0).get_partial_shape()) for node in reshapes]
    for node, of_one_image in zip(reshapes, whole, strict=True):
        _free(node, of_one_image=of_one_image)
    (image,) = graph.get_parameters()
    shape = image.get_partial_shape()
    shape[0] = ov.Dimension(-1)
    image.set_partial_shape(shape)
    graph.validate_nodes_and_infer_types()


def _has_one_image(shape: ov.PartialShape) -> bool:
    """Whether the first length of a traced shape is that of the one image."""
    return bool(shape.rank.is_static and len(shape) and shape[0] == ov.Dimension(1))


def _free(reshape: ov.Node, *, of_one_image: bool) -> None:
    """Let a Reshape take its first length from its input if it is that of one image."""
    data, wanted = (reshape.input_value(i) for i in (0, 1))
    lengths = _parts(wanted.get_node())
    first = lengths[0].get_data().ravel() if lengths and _is_constant(lengths[0]) else []
    if _is_constant(data.get_node()) or not len(first) or first[0] != 1:
        return
    given = opset.constant(np.array([0 if of_one_image else -1, *first[1:]]))
    others = wanted.get_node().input_values()[1:]
    pattern = opset.concat([given, *others], 0) if others else given
    free = opset.reshape(data, pattern, special_zero=True)
    free.set_friendly_name(reshape.get_friendly_name())
    free.output(0).set_names(reshape.output(0).get_names())
    reshape.output(0).replace(free.output(0))


def _parts(shape: ov.Node) -> list[ov.Node]:
    """The nodes whose values make a shape: those that a Concat joins, or a constant."""
    if shape.get_type_name() == "Concat":
        return [value.get_node() for value in shape.input_values()]
    return [shape] if _is_constant(shape) else []


def _is_constant(node: ov.Node) -> bool:
    return bool(node.get_type_name() == "Constant")


def _keeps_batch(graph: ov.Model) -> bool:
    """Whether all outputs for some images are of as many. Raises `RuntimeError`."""
    count, height, width = _TRIED
    trial = graph.clone()
    trial.reshape([count, height, width, 3])
    shapes = [port.get_partial_shape() for port in trial.outputs]
    return all(shape[0] == ov.Dimension(count) for shape in shapes)
