"""Small networks with the outputs of other projects' detectors, exported with PyTorch's legacy exporter."""

from __future__ import annotations

import warnings

import torch
from torch import nn

SIZE = (64, 48)  # width, height
CLASSES = 3
ANCHORS = 12 * 16


class Trunk(nn.Module):
    """A convolution of stride 4 and one for each output: maps [N, K, 12, 16]."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(8, c, 1) for c in channels)

    def maps(self, image):
        features = self.stem(image)
        return [head(features) for head in self.heads]

    def rows(self, image):
        """[N, A, K] of each map."""
        return [m.flatten(2).transpose(1, 2) for m in self.maps(image)]


class YoloV5(Trunk):
    def __init__(self):
        super().__init__(5 + CLASSES)

    def forward(self, image):
        rows = self.rows(image)[0].sigmoid()
        return torch.cat([rows[..., :2] * 64, rows[..., 2:4] * 30 + 1, rows[..., 4:]], 2)


class YoloV8(Trunk):
    def __init__(self):
        super().__init__(4 + CLASSES)

    def forward(self, image):
        columns = self.maps(image)[0].flatten(2).sigmoid()
        return torch.cat([columns[:, :2] * 64, columns[:, 2:4] * 30 + 1, columns[:, 4:]], 1)


class EndToEnd(Trunk):
    """Rows of x1, y1, x2, y2, score, class, best first."""

    def __init__(self):
        super().__init__(2, 2, CLASSES)

    def forward(self, image):
        place, size, classes = (r.sigmoid() for r in self.rows(image))
        best, number = classes.max(2)
        score, index = best.topk(10, 1)
        boxes = torch.cat([place * 30, place * 30 + size * 20 + 1], 2)
        chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return torch.cat([chosen, score[..., None], number.gather(1, index)[..., None].float()], 2)


class Selected(EndToEnd):
    def forward(self, image):
        rows = super().forward(image)
        return rows[..., :4], rows[..., 4], rows[..., 5].long()


class Ssd(Trunk):
    """Offsets, class scores with the background first, and priors as a third output where asked for."""

    def __init__(self, softmax=False, priors=True):
        super().__init__(4, 1 + CLASSES)
        ys, xs = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(16) + 0.5, indexing="ij")
        table = torch.stack([xs / 16, ys / 12, torch.full_like(xs, 0.3), torch.full_like(xs, 0.2)], 2)
        self.register_buffer("table", table.reshape(-1, 4))
        self.softmax, self.priors = softmax, priors

    def forward(self, image):
        offsets, scores = self.rows(image)
        scores = scores.softmax(2) if self.softmax else scores
        return (offsets, scores, self.table * 1.0) if self.priors else (offsets, scores)


class CenterNet(Trunk):
    def __init__(self, sigmoid=False, offset=True):
        super().__init__(CLASSES, 2, *([2] if offset else []))
        self.sigmoid = sigmoid

    def forward(self, image):
        heat, *rest = self.maps(image)
        return (heat.sigmoid() if self.sigmoid else heat), rest[0].abs() * 3 + 1, *(r.sigmoid() for r in rest[1:])


class Detr(Trunk):
    """Logits [N, Q, C + extra] and boxes [N, Q, 4] in 0..1."""

    def __init__(self, extra=1):
        super().__init__(CLASSES + extra, 4)

    def forward(self, image):
        logits, boxes = self.rows(image)
        return logits, boxes.sigmoid()


def export(network, path, names, opset=13, dynamic=None, seed=0, size=SIZE):
    """Random weights, large enough for scores that differ; returns the path."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.6)
    image = torch.rand(1, 3, size[1], size[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (image,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            output_names=list(names),
            dynamic_axes=dynamic,
        )
    return path
