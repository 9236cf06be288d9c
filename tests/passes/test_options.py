"""What a request answers of single weights."""

import pytest

from passes import Options


@pytest.mark.parametrize(
    ("name", "width"),
    [("a + c", 5), ("b + c", 5), ("b", 3), ("b + d", 4), ("c", 5), ("d", 4), ("a", 2)],
)
def test_width_of_a_group(name, width):
    """That of its own, or the largest of the groups that its weights were in; others have the request's."""
    assert Options(bits=4, bits_for={"a": 2, "b": 3, "a + c": 5}).width(name) == width
