"""A runner: image in, detections out. Preprocess, session and post-processing, timed."""

import numpy as np

from .artifact import read_artifact
from .errors import ArtifactError, BadInput
from .postprocess import Postprocess, all_finite
from .sessions import INPUT, open_session
from .timing import Timing


class Runner(object):
    """``runner(image) -> (Detections, Timing)`` for uint8 BGR images [height, width, 3].

    The spans are preprocess, inference and postprocess, and host_to_device and device_to_host where the session tells
    them; decoding the file belongs to whoever reads it. BadInput when the network gives NaN or infinity.
    score_threshold: replaces the manifest's when given, 0..1
    """

    def __init__(self, artifact, session, score_threshold=None):
        self.artifact = artifact
        self.session = session
        self.preprocess = artifact.preprocess
        self.postprocess = _postprocess(artifact, session, score_threshold)
        self.batch = artifact.batch
        self._classes = len(artifact.classes)

    def __call__(self, image):
        timing = Timing()
        tensor, placement = self._prepared(image)
        timing.lap("preprocess")
        outputs = self.session.infer({INPUT: tensor})
        timing.lap("inference")
        if self.session.spans:
            timing.split("inference", self.session.spans)
        detections = self._detections(outputs, 0, placement)
        timing.lap("postprocess")
        return detections, timing

    def _prepared(self, image):
        """What the session takes, and the placement; a file with a batch gets the image in every place of it."""
        if self.batch == 1:
            return self.session.prepare(image, self.preprocess)
        tensor, placement = self.preprocess(image, self.session.layout)
        return np.repeat(tensor, self.batch, axis=0), placement

    def many(self, images):
        """Detections of ``batch`` images by one call of the session; for files that were exported with a batch."""
        if len(images) == 1:
            prepared = [self.session.prepare(images[0], self.preprocess)]
            tensor = prepared[0][0]
        else:
            prepared = [self.preprocess(image, self.session.layout) for image in images]
            tensor = np.concatenate([one for one, _ in prepared])
        outputs = self.session.infer({INPUT: tensor})
        return [self._detections(outputs, i, placement) for i, (_, placement) in enumerate(prepared)]

    def _detections(self, outputs, index, placement):
        """Those of one image of the batch. BadInput where the network has another number of classes than the manifest,
        or gives NaN or infinity.
        """
        boxes, scores = outputs["boxes"][index], outputs["scores"][index]
        if scores.shape[-1] != self._classes:
            raise BadInput(
                "{}: the network scores {} classes, and its manifest names {}: {}. Make the artifact again.".format(
                    self.artifact.path, scores.shape[-1], self._classes, ", ".join(self.artifact.classes)
                )
            )
        self._require_finite(boxes, scores)
        return self.postprocess(boxes, scores, placement)

    def _require_finite(self, boxes, scores):
        """No figure may come from such outputs: NaN boxes overlap every object, NaN scores are found by nobody."""
        if not all_finite(boxes, scores):
            raise BadInput(
                "{}: the network gives NaN or infinite boxes or scores; nothing can be measured of it. In FP16 the "
                "cause is mostly a value above 65504.".format(self.artifact.path)
            )

    def check(self, image):
        """Run once and look at the raw outputs. BadInput when they break the output contract or are not finite, as
        every other run has it too.
        """
        tensor, _ = self._prepared(image)
        outputs = self.session.infer({INPUT: tensor})
        boxes, scores = outputs["boxes"], outputs["scores"]
        wanted = boxes.shape[:2] + (len(self.artifact.classes),)
        if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.shape != wanted:
            raise BadInput(
                "{}: gives boxes {} and scores {}; needed [N, A, 4] and [N, A, {}].".format(
                    self.artifact.path, boxes.shape, scores.shape, len(self.artifact.classes)
                )
            )
        self._require_finite(boxes, scores)

    def close(self):
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


def _postprocess(artifact, session, score_threshold):
    values = dict(artifact.manifest.get("postprocess") or session.postprocess)
    if score_threshold is not None:
        values["score_threshold"] = score_threshold
    try:
        return Postprocess.from_dict(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArtifactError("{}: the manifest's postprocess is wrong: {}".format(artifact.path, error)) from error


def open_runner(path, runtime="onnxruntime", threads=1, score_threshold=None):
    """Read and verify the artifact folder ``path`` and open it in ``runtime``. Use it as a context manager.

    Raises what ``read_artifact`` and ``open_session`` raise.
    """
    artifact = read_artifact(path)
    return Runner(artifact, open_session(runtime, artifact, threads), score_threshold)
