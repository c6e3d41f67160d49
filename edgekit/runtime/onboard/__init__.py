"""What runs on a board from ``edgekit_board.pyz``: unpack a bundle, build, verify, measure, look after versions."""
