"""What is wrong with a command is said of the command, not of a configuration."""

import pytest

from maskstream.pipeline.errors import PromptError
from maskstream.pipeline.live.commands import parse_command


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"type": "box", "xyxy": [9, 9, 5, 5]}', "the box is wrong: a box is x0, y0, x1, y1"),
        ('{"type": "box", "xyxy": [-9, -9, -5, -5]}', "the box lies outside"),
        ('{"type": "point", "xy": [64, 1]}', "the point lies outside"),
        ('{"type": "point"}', "the command is wrong: a point needs 'xy'"),
        ('{"type": "remove", "object": 0}', "the command is wrong: object: "),
    ],
)
def test_a_wrong_command_is_a_sentence_about_the_command(line, says):
    with pytest.raises(PromptError, match=f"^{says}"):
        parse_command(line).check_inside((36, 64))
