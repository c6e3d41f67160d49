"""Colours and sizes of what is drawn on pictures, in reports and on the camera's page alike."""

import cv2

# Okabe and Ito's palette (2008), which colour-blind people can tell apart, without its black; BGR
PALETTE = (
    (233, 180, 86),  # sky blue
    (0, 159, 230),  # orange
    (115, 158, 0),  # bluish green
    (66, 228, 240),  # yellow
    (167, 121, 204),  # reddish purple
    (0, 94, 213),  # vermillion
    (178, 114, 0),  # blue
)
INK, PAPER = (24, 24, 24), (250, 250, 250)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 22.0  # pixels of a capital letter at scale 1


def class_colour(class_id):
    """BGR of a class; from the eighth class on the palette comes again, lighter."""
    blue, green, red = PALETTE[class_id % len(PALETTE)]
    white = 0.5 * min(1, class_id // len(PALETTE))
    return round(blue + (255 - blue) * white), round(green + (255 - green) * white), round(red + (255 - red) * white)


def ink_on(colour):
    """The colour of letters that can be read on a patch of ``colour``."""
    return INK if 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 110 else PAPER


def line_width(shape):
    """Pixels, of lines on a picture of this shape (h, w, ...): 1 for a thumbnail, 2 at 640 x 480, 4 at 1920 x 1080."""
    short = min(shape[:2])
    return max(1 if short < 160 else 2, round(short / 250.0))
