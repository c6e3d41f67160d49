"""Data: the COCO reader and its ``Sample``, augmentation and the training set, and the named calibration sets."""
