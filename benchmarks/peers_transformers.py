"""A detector toolkit's predict, for peers.py: Hugging Face's Transformers, YOLOS-tiny with random weights, one image.

    python peers_transformers.py IMAGE SECONDS

Runs in the environment that ``peers.py --install transformers`` makes; nothing is downloaded but the packages. Prints
{"predict_ms": [...], "network_ms": [...]}: from the decoded image to boxes, and the network's forward pass alone.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

SIZE = (320, 320)
SCORE = 0.5


def toolkit() -> tuple[Callable[[], Any], Callable[[], None]]:
    """(predict, network): both take nothing; the image and the tensor are bound."""
    import torch
    from PIL import Image
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    network = YolosForObjectDetection(YolosConfig(**shape, image_size=list(SIZE), num_labels=3)).eval()
    processor = YolosImageProcessor(size={"height": SIZE[0], "width": SIZE[1]})
    image = Image.open(sys.argv[1]).convert("RGB")
    tensor = processor(images=image, return_tensors="pt")

    def predict() -> Any:
        inputs = processor(images=image, return_tensors="pt")
        with torch.no_grad():
            outputs = network(**inputs)
        size = [image.size[::-1]]
        return processor.post_process_object_detection(outputs, threshold=SCORE, target_sizes=size)

    def alone() -> None:
        with torch.no_grad():
            network(**tensor)

    return predict, alone


def main() -> None:
    predict, alone = toolkit()
    times: dict[str, list[float]] = {"predict_ms": [], "network_ms": []}
    for _ in range(3):
        predict()
        alone()
    end = time.perf_counter() + float(sys.argv[2])
    while time.perf_counter() < end or len(times["predict_ms"]) < 3:
        for name, call in (("predict_ms", predict), ("network_ms", alone)):
            started = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - started) * 1e3)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
