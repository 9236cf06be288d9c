"""Work beside other work ends with its result or its error."""

import pytest

from bct_onnx.files.background import in_background


def test_the_result_or_the_error_is_there_when_asked_for():
    assert in_background(lambda: 6 * 7).result() == 42
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0).result()
