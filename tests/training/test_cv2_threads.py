"""A loader's worker is forked; OpenCV's thread pool of the process before the training must not stop it."""

import subprocess
import sys

PROGRAM = """
import cv2, numpy as np, torch
from edgekit.training.fit import one_cv2_thread

class Resized(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return cv2.resize(np.full((1200, 1600, 3), index, np.uint8), (800, 600)).mean()

cv2.setNumThreads(4)
cv2.resize(np.zeros((3000, 4000, 3), np.uint8), (2000, 1500))  # the pool's threads are running now
with one_cv2_thread():
    print(sum(float(b) for b in torch.utils.data.DataLoader(Resized(), num_workers=1)), cv2.getNumThreads())
print(cv2.getNumThreads())
"""


def test_workers_do_not_wait_for_threads_that_a_fork_left_behind():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["6.0", "1", "4"]
