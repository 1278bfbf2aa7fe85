"""SAM's labels of prompt points, the same in torch and in the graphs."""

PAD, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3
