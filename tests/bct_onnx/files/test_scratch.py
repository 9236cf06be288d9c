"""Arrays put on disk are equal to what they were, and leave nothing behind."""

from contextlib import closing
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bct_onnx.errors import BctError
from bct_onnx.files import Scratch, let_go
from bct_onnx.files import scratch as scratch_module


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16, ml_dtypes.bfloat16])
def test_large_arrays_come_back_from_the_file(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 100, (3, 77, size)).astype(dtype) for size in (1201, 1300)]
    with closing(Scratch(tmp_path / "out.onnx")) as scratch:
        moved = [scratch.move(array) for array in (*arrays, arrays[0].T)]
    assert all(type(array) is np.memmap for array in moved)
    for array, original in zip(moved, (*arrays, arrays[0].T), strict=True):
        assert array.dtype == original.dtype
        np.testing.assert_array_equal(array, original)
    assert not list(tmp_path.iterdir())


def test_small_arrays_stay_in_memory(tmp_path: Path) -> None:
    array = np.zeros(1000)
    with closing(Scratch(tmp_path / "out.onnx")) as scratch:
        assert scratch.move(array) is array


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, *_: int) -> int:
            return 0

        def write(self, _: object) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(scratch_module.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(BctError, match="No space left"), closing(Scratch(tmp_path / "out.onnx")) as scratch:
        scratch.move(np.zeros(1 << 20))


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(BctError, match="cannot be written"):
        Scratch(tmp_path / "absent" / "out.onnx")


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_what_was_let_go_is_read_anew(tmp_path: Path, size: int) -> None:
    expected = np.arange(size, dtype=np.float32)
    with closing(Scratch(tmp_path / "out.onnx")) as scratch:
        moved = scratch.move(expected)
        for _ in range(2):
            np.testing.assert_array_equal(moved, expected)
            let_go(moved)
    np.testing.assert_array_equal(moved, expected)
