"""Everything that runs on a board: Python 3.6, numpy and cv2, nothing else at import."""
