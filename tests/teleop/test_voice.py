import shutil
import subprocess
import wave

import numpy as np
import pytest

from hildaft.commands.talk import talk
from hildaft.teleop import voice
from hildaft.teleop.voice import Heard, PushToTalk, Recogniser, read_wav
from hildaft.types import HilDaftError, RefinementCommand

LEFT = RefinementCommand((0, 1, 0))


def speak(tmp_path, text: str):
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng, which speaks the phrases of this test, is not installed")
    path = tmp_path / "speech.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(path), text], check=True)
    return path


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    pytest.importorskip("pocketsphinx", reason="the extra `voice` is not installed")
    return Recogniser()


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("move left", (0, 1, 0)),
        ("too far left", (0, -1, 0)),
        ("go back", (-1, 0, 0)),
        ("stop", (0, 0, 0)),
    ],
)
def test_synthetic_speech(tmp_path, recogniser, text, signs) -> None:
    heard = recogniser.hear(read_wav(speak(tmp_path, text)))
    assert heard == Heard(text, RefinementCommand(signs))


def test_a_sentence_broken_off_is_asked_about(recogniser, monkeypatch) -> None:
    class Best:
        hypstr = "go up and"

    class Decoder:
        def __getattr__(self, name):
            return lambda *given, **named: Best()

    monkeypatch.setattr(recogniser, "_decoder", Decoder())
    assert recogniser.hear(np.zeros(16_000, dtype=np.int16)) == Heard("go up and", None)


def test_silence_and_short_presses_say_nothing(recogniser) -> None:
    assert recogniser.hear(np.zeros(100, dtype=np.int16)) == Heard("", None)
    assert recogniser.hear(np.zeros(16_000, dtype=np.int16)).command is None


class Microphone:
    open = 0

    def __call__(self):
        self.open += 1

        def finish():
            self.open -= 1
            return np.zeros(8000, dtype=np.int16)

        return finish


def test_words_act_only_when_they_were_shown_and_confirmed() -> None:
    acted, microphone = [], Microphone()
    button = PushToTalk(lambda samples: Heard("left", LEFT), acted.append, microphone)
    assert button.release() == Heard("", None)
    button.press()
    button.press()
    assert microphone.open == 1
    assert button.pending is None
    assert button.release().command == LEFT
    assert microphone.open == 0
    assert acted == []
    button.discard()
    assert not button.confirm()
    button.press()
    button.release()
    assert button.confirm()
    assert not button.confirm()
    assert acted == [LEFT]


def test_what_was_not_understood_cannot_be_confirmed() -> None:
    button = PushToTalk(lambda samples: Heard("not so", None), pytest.fail, Microphone())
    button.press()
    button.release()
    assert not button.confirm()


def test_recordings_are_checked(tmp_path) -> None:
    with pytest.raises(HilDaftError, match="16-bit"):
        read_wav(tmp_path / "none.wav")
    path = tmp_path / "eight.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(b"\x80" * 800)
    with pytest.raises(HilDaftError, match="8 bits"):
        read_wav(path)


def test_a_recording_of_any_rate_becomes_mono_at_16_khz(tmp_path) -> None:
    path = tmp_path / "stereo.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.tile([100, 300], 4800).astype(np.int16).tobytes())
    samples = read_wav(path)
    assert len(samples) == 1600
    assert set(samples.tolist()) == {200}


def test_a_missing_extra_says_what_to_install(monkeypatch) -> None:
    def missing(name: str):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(voice.importlib, "import_module", missing)
    with pytest.raises(HilDaftError, match=r"hildaft\[voice\]"):
        Recogniser()


def test_the_command_shows_words_in_the_frame_that_was_set(capsys, unchecked_calls) -> None:
    assert talk(["too", "far", "left", "--frame.forward=-y", "--frame.left=+x"]) == 0
    out = capsys.readouterr().out
    assert "forward is -y" in out
    assert "move right; base signs (-1, 0, 0)" in out
    assert talk(["the left bolt is fine"]) == 1
    assert "not understood; meant: move left, move right?" in capsys.readouterr().out
