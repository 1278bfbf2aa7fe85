"""Fold Pad layers of OpenVINO graphs into the convolutions that follow them."""

from __future__ import annotations

import numpy as np

from maskstream.pipeline.segmenter.openvino_runtime import opset, ov

_CONVOLUTIONS = {"Convolution": opset.convolution, "GroupConvolution": opset.group_convolution}


def fold_paddings(graph: ov.Model) -> ov.Model:
    """Replace Pad layers by the padding of the following convolutions; exact.

    OpenVINO does so when it compiles, but not past a FakeQuantize, although that keeps zeros.
    """
    for pad in graph.get_ops():
        if not _pads_with_zeros(pad):
            continue
        last, convolution = pad, _only_user(pad)
        if convolution is not None and convolution.get_type_name() == "FakeQuantize":
            last, convolution = convolution, _only_user(convolution)
        if convolution is None or convolution.get_type_name() not in _CONVOLUTIONS:
            continue
        own = convolution.get_attributes()
        before, after = (pad.input_value(i).get_node().get_data()[2:] for i in (1, 2))
        padded = _CONVOLUTIONS[convolution.get_type_name()](
            pad.input_value(0) if last is pad else last.output(0),
            convolution.input_value(1),
            own["strides"],
            [int(n + m) for n, m in zip(own["pads_begin"], before, strict=True)],
            [int(n + m) for n, m in zip(own["pads_end"], after, strict=True)],
            own["dilations"],
        )
        padded.set_friendly_name(convolution.get_friendly_name())
        if last is not pad:
            last.input(0).replace_source_output(pad.input_value(0))
        convolution.output(0).replace(padded.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def _pads_with_zeros(node: ov.Node) -> bool:
    """Whether a node pads the spatial axes with zeros, by constant amounts."""
    if node.get_type_name() != "Pad" or node.get_attributes()["pad_mode"] != "constant":
        return False
    given = [node.input_value(i).get_node() for i in range(1, node.get_input_size())]
    if any(value.get_type_name() != "Constant" for value in given):
        return False
    before, after, *value = (constant.get_data() for constant in given)
    return not (any(before[:2]) or any(after[:2]) or np.any(value))


def _only_user(node: ov.Node) -> ov.Node | None:
    users = node.output(0).get_target_inputs()
    return next(iter(users)).get_node() if len(users) == 1 else None
