"""Examples: what is read of the user's, and how sounds get another rate."""

import wave

import numpy as np
import pytest

from bct_onnx import BctError
from bct_onnx.package import examples


def write_wave(path, samples, rate, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 2**15).astype("<i2").tobytes())


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 16000])
def test_a_tone_stays_a_tone_at_another_rate(tmp_path, rate):
    """A tone with whole periods in the clip comes back to within the rounding of 16 bits."""
    write_wave(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    (sound,) = examples.sounds(tmp_path, 16000)
    assert sound["sampling_rate"] == 16000
    assert sound["raw"].dtype == np.float32
    np.testing.assert_allclose(sound["raw"], 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000), atol=1e-4)


def test_what_a_slower_rate_cannot_hold_is_left_out(tmp_path):
    write_wave(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 7000 * np.arange(16000) / 16000), 16000)
    (sound,) = examples.sounds(tmp_path / "tone.wav", 8000)
    assert np.abs(sound["raw"]).max() < 1e-3


def test_texts_are_lines(tmp_path):
    (tmp_path / "lines.txt").write_text("one\n\n  two \n" + "more\n" * 100)
    assert examples.texts(tmp_path / "lines.txt")[:2] == ["one", "two"]
    assert len(examples.texts(tmp_path / "lines.txt")) == examples.MOST
    assert examples.texts(None) == examples.TEXTS


def test_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("L", (4, 5)).save(tmp_path / "one.PNG")
    (tmp_path / "list.txt").touch()
    assert [picture.mode for picture in examples.pictures(tmp_path)] == ["RGB"]
    assert len({picture.tobytes() for picture in examples.pictures(None)}) == 5


def test_what_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BctError, match="cannot be read as text"):
        examples.texts(tmp_path / "binary")
    with pytest.raises(BctError, match="cannot be read as text"):
        examples.texts(tmp_path)
    with pytest.raises(BctError, match="holds no pictures"):
        examples.pictures(tmp_path)
    with pytest.raises(BctError, match="holds no sounds"):
        examples.sounds(tmp_path, 16000)
    (tmp_path / "no.wav").write_bytes(b"RIFF")
    with pytest.raises(BctError, match=r"no\.wav: cannot be read as sound"):
        examples.sounds(tmp_path, 16000)
    write_wave(tmp_path / "no.wav", np.zeros(8), 8000, channels=2)
    with pytest.raises(BctError, match="other than one channel of 16 bits"):
        examples.sounds(tmp_path, 16000)
