"""Accuracy: COCO mAP over ``Detections``."""
