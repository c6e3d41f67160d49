"""NMS inside the engine: the plugin EfficientNMS_TRT (TensorRT 8 and 10) or the layer INMSLayer (8.5 on).

Both end in the same four outputs, which a session turns back into EdgeKit's ``boxes`` and ``scores``.
"""

import numpy as np

from ..errors import BadConfig, BadInput

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
PLUGIN = "EfficientNMS_TRT"
# below it the plugin leaves its fast path and sorts every score there is
LOWEST_THRESHOLD = 0.01


def check_suppression(postprocess):
    """Raise BadConfig for a head whose post-processing the engine cannot do: none to do, or soft NMS."""
    wanted = postprocess.get("nms", "none")
    if wanted == "none":
        raise BadConfig("nms in the graph: this head needs none (its postprocess says nms: none). Leave it: --nms host")
    if wanted != "classwise":
        raise BadConfig(
            "nms in the graph: TensorRT has no {} NMS, only class-wise greedy NMS. Keep it: --nms host".format(wanted)
        )


def settings(postprocess):
    """(score threshold, IoU threshold, most detections) of a manifest's ``postprocess``."""
    threshold = max(LOWEST_THRESHOLD, float(postprocess.get("score_threshold", LOWEST_THRESHOLD)))
    return threshold, float(postprocess.get("iou_threshold", 0.5)), int(postprocess.get("top_k", 100))


def contract_outputs(network):
    """The tensors ``boxes`` and ``scores``, no longer outputs. BadInput when the network has others."""
    found = {}
    for i in range(network.num_outputs):
        tensor = network.get_output(i)
        found[tensor.name] = tensor
    if set(found) != {"boxes", "scores"}:
        raise BadInput("nms in the graph needs the outputs boxes and scores; found {}".format(", ".join(sorted(found))))
    for tensor in found.values():
        network.unmark_output(tensor)
    return found["boxes"], found["scores"]


def add_plugin(trt, network, logger, postprocess):
    """Append EfficientNMS_TRT behind ``boxes`` and ``scores``; class-wise, corners, probabilities as they are."""
    check_suppression(postprocess)
    trt.init_libnvinfer_plugins(logger, "")
    registry = trt.get_plugin_registry()
    creator = registry.get_plugin_creator(PLUGIN, "1", "")
    if creator is None:
        raise BadConfig(
            "nms: this TensorRT {} has no plugin {}. Keep NMS on the host: --nms host".format(trt.__version__, PLUGIN)
        )
    threshold, iou, most = settings(postprocess)
    kinds = {np.float32: trt.PluginFieldType.FLOAT32, np.int32: trt.PluginFieldType.INT32}
    values = (
        ("score_threshold", threshold, np.float32),
        ("iou_threshold", iou, np.float32),
        ("max_output_boxes", most, np.int32),
        ("background_class", -1, np.int32),
        ("score_activation", 0, np.int32),
        ("box_coding", 0, np.int32),
    )
    kept = [(name, np.array([value], kind), kinds[kind]) for name, value, kind in values]  # alive until it is made
    fields = trt.PluginFieldCollection([trt.PluginField(name, value, kind) for name, value, kind in kept])
    plugin = creator.create_plugin(PLUGIN, fields)
    layer = network.add_plugin_v2(list(contract_outputs(network)), plugin)
    _mark(network, [layer.get_output(k) for k in range(len(OUTPUTS))])


def _mark(network, tensors):
    for name, tensor in zip(OUTPUTS, tensors):  # noqa: B905 - Python 3.6
        tensor.name = name
        network.mark_output(tensor)


def add_layer(trt, network, postprocess):
    """Append INMSLayer and gather what it selects, so that only the kept boxes leave the engine.

    The layer gives (batch, class, box) of each selection; the batch is 1. The number of selections depends on the data,
    so the outputs have a size that is known only after the run.
    """
    check_suppression(postprocess)
    threshold, iou, most = settings(postprocess)
    boxes, scores = contract_outputs(network)
    anchors, classes = int(scores.shape[1]), int(scores.shape[2])
    # INMSLayer wants the scores as probabilities [batch, boxes, classes] and the boxes as [batch, boxes, 4]
    limit = _constant(network, np.array(most, np.int32))
    suppression = network.add_nms(boxes, scores, limit)
    suppression.bounding_box_format = trt.BoundingBoxFormat.CORNER_PAIRS
    suppression.set_input(3, _constant(network, np.array(iou, np.float32)))
    suppression.set_input(4, _constant(network, np.array(threshold, np.float32)))
    selected, count = suppression.get_output(0), suppression.get_output(1)
    box = _column(network, selected, 2)
    label = _column(network, selected, 1)
    pair = _sum(trt, network, _product(trt, network, box, classes), label)
    _mark(
        network,
        [
            count,
            _rows(network, boxes, (anchors, 4), box),
            _rows(network, scores, (anchors * classes,), pair),
            label,
        ],
    )


def _constant(network, value):
    layer = network.add_constant(value.shape, np.ascontiguousarray(value))
    return layer.get_output(0)


def _column(network, tensor, index):
    """Column ``index`` of an INT32 table [n, 3], as [n]."""
    layer = network.add_gather(tensor, _constant(network, np.array(index, np.int32)), 1)
    return layer.get_output(0)


def _product(trt, network, tensor, factor):
    layer = network.add_elementwise(
        tensor, _constant(network, np.array([factor], np.int32)), trt.ElementWiseOperation.PROD
    )
    return layer.get_output(0)


def _sum(trt, network, tensor, other):
    layer = network.add_elementwise(tensor, other, trt.ElementWiseOperation.SUM)
    return layer.get_output(0)


def _rows(network, tensor, shape, index):
    """Rows ``index`` of ``tensor`` seen in another shape."""
    shuffle = network.add_shuffle(tensor)
    shuffle.reshape_dims = shape
    layer = network.add_gather(shuffle.get_output(0), index, 0)
    return layer.get_output(0)
