"""Speech to words by push-to-talk (extra `voice`): pocketsphinx with a small grammar, offline.

The recogniser knows nothing but the grammar, so anything said becomes one of its sentences: the microphone is open
only while the button is held, the words are shown first, and they act only when confirmed. Stopping
by voice is a convenience; the stop that counts is the key.
"""

import functools
import importlib
import importlib.util
import threading
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float64, Int16

from hildaft.teleop.phrases import parse_phrase
from hildaft.types import HilDaftError, RefinementCommand

SAMPLE_HZ: Final = 16_000
LONGEST_S: Final = 10.0
"""What is said after this long with the button held is not heard."""
SHORTEST_S: Final = 0.2

GRAMMAR: Final = """#JSGF V1.0;
grammar talk;
public <talk> = <order> | <correction> | <stop>;
<order> = [move | go] <way> [and <way>] [a bit];
<way> = left | right | up | down | forward | back | backwards | higher | lower | back up
      | to the left | to the right | towards me | away from me;
<correction> = too far (left | right | forward | back) | too high | too low
      | less left | less right | not so far left | not so far right | not so high | not so low;
<stop> = stop | hold it | do not move;
"""
"""What may be said (JSGF): a part of what `parse_phrase` reads, small enough to be told apart by ear."""

_UNFINISHED: Final = frozenset(
    ("move", "go", "and", "to", "the", "too", "far", "less", "not", "so", "do")
)
"""Words that no sentence of the grammar ends with."""
_NOISE: Final = 20.0
"""Amplitude of the noise laid under a recording: the recogniser is misled by digital silence."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood; nothing has acted on it yet."""

    text: str
    """The words, "" where nothing was heard."""
    command: RefinementCommand | None
    """What they ask for, signs (forward, left, up); None where the operator has to be asked."""


@final
class Recogniser:
    """Turns a recording into the sentence of the grammar it is closest to.

    Raises:
        HilDaftError: the extra is not installed.
    """

    def __init__(self) -> None:
        sphinx = _load("pocketsphinx", "")
        self._decoder = sphinx.Decoder(samprate=SAMPLE_HZ, lm=None, loglevel="FATAL")
        self._decoder.add_jsgf_string("talk", GRAMMAR)
        self._decoder.activate_search("talk")
        self._noise = np.random.default_rng(0)

    def hear(self, samples: Int16[np.ndarray, " n"]) -> Heard:
        """The words of one recording, mono at 16 kHz; too short a press is silence."""
        if len(samples) < SHORTEST_S * SAMPLE_HZ:
            return Heard("", None)
        pad = np.zeros(int(0.3 * SAMPLE_HZ))
        sound = np.concatenate([pad, samples[: int(LONGEST_S * SAMPLE_HZ)].astype(np.float64), pad])
        sound += self._noise.normal(0.0, _NOISE, len(sound))
        self._decoder.start_utt()
        self._decoder.process_raw(
            np.clip(sound, -32768, 32767).astype(np.int16).tobytes(), full_utt=True
        )
        self._decoder.end_utt()
        best = self._decoder.hyp()
        text = best.hypstr.strip() if best else ""
        # Out of grammar, the recogniser stops in the middle of a sentence.
        whole = bool(text) and text.split()[-1] not in _UNFINISHED
        return Heard(text, parse_phrase(text) if whole else None)


def missing_voice() -> str:
    """Why nothing can be recognised here, and what to install; "" where it can."""
    if importlib.util.find_spec("pocketsphinx") is not None:
        return ""
    return "voice: no recogniser on the robot's computer; install it there: pip install 'hildaft[voice]'"


@functools.cache
def _own_recogniser() -> Recogniser:
    return Recogniser()


def hear_recording(samples: Int16[np.ndarray, " n"]) -> Heard:
    """`Recogniser.hear` with one recogniser per process, made when first needed; an empty recording makes it."""
    return _own_recogniser().hear(samples)


@final
class PushToTalk:
    """From pressing the button to a command in force: press, release, read, confirm.

    Args:
        hear: turns a recording into words: `Recogniser.hear`.
        act: called with a command once it is confirmed.
        microphone: starts a recording and returns what ends it and gives the samples.
    """

    def __init__(
        self,
        hear: Callable[[Int16[np.ndarray, " n"]], Heard],
        act: Callable[[RefinementCommand], None],
        microphone: Callable[[], Callable[[], Int16[np.ndarray, " n"]]],
    ) -> None:
        self._hear, self._act, self._microphone = hear, act, microphone
        self._finish: Callable[[], Int16[np.ndarray, " n"]] | None = None
        self._pending: Heard | None = None

    @property
    def pending(self) -> Heard | None:
        """What was understood and waits to be confirmed."""
        return self._pending

    def press(self) -> None:
        """Opens the microphone; what was pending is forgotten."""
        self._pending = None
        if self._finish is None:
            self._finish = self._microphone()

    def release(self) -> Heard:
        """Closes the microphone and returns what was understood, to be shown; nothing acts."""
        if self._finish is None:
            return Heard("", None)
        finish, self._finish = self._finish, None
        self._pending = self._hear(finish())
        return self._pending

    def confirm(self) -> bool:
        """Lets the pending words act; False where there is nothing certain to act on."""
        pending, self._pending = self._pending, None
        if pending is None or pending.command is None:
            return False
        self._act(pending.command)
        return True

    def discard(self) -> None:
        """Forgets the pending words."""
        self._pending = None


def open_microphone() -> Callable[[], Int16[np.ndarray, " n"]]:
    """Starts recording from the default microphone; the returned function ends it and gives the samples.

    Raises:
        HilDaftError: the extra or PortAudio is missing, or there is no microphone.
    """
    sound = _load("sounddevice", "; and the system library: sudo apt install libportaudio2")
    blocks: list[bytes] = []
    lock = threading.Lock()
    most = int(LONGEST_S * SAMPLE_HZ) * 2

    def take(data: bytes, frames: int, when: object, status: object) -> None:
        del frames, when, status
        with lock:
            if sum(map(len, blocks)) < most:
                blocks.append(bytes(data))

    try:
        stream = sound.RawInputStream(SAMPLE_HZ, channels=1, dtype="int16", callback=take)
        stream.start()
    except sound.PortAudioError as error:
        msg = f"voice: the microphone cannot be opened ({error}); plug one in, or type the words"
        raise HilDaftError(msg) from error

    def finish() -> Int16[np.ndarray, " n"]:
        stream.stop()
        stream.close()
        with lock:
            return np.frombuffer(b"".join(blocks), dtype=np.int16)

    return finish


def read_wav(path: Path) -> Int16[np.ndarray, " n"]:
    """A 16-bit WAV file as mono at 16 kHz.

    Raises:
        HilDaftError: no such file, or no 16-bit PCM.
    """
    try:
        with wave.open(str(path)) as file:
            channels, width, rate, frames = file.getparams()[:4]
            data = file.readframes(frames)
    except (OSError, EOFError, wave.Error) as error:
        msg = f"recording {path}: {error}; a 16-bit WAV file is allowed"
        raise HilDaftError(msg) from error
    if width != 2 or not data:
        msg = f"recording {path}: {8 * width} bits, {len(data)} bytes; a 16-bit WAV file with sound is allowed"
        raise HilDaftError(msg)
    mono = np.frombuffer(data, dtype=np.int16).reshape(-1, channels).mean(axis=1)
    return _resample(mono, rate)


def _resample(mono: Float64[np.ndarray, " n"], rate: int) -> Int16[np.ndarray, " m"]:
    length = round(len(mono) * SAMPLE_HZ / rate)
    at = np.arange(length) * (rate / SAMPLE_HZ)
    return np.interp(at, np.arange(len(mono)), mono).astype(np.int16)


def _load(module: str, also: str) -> Any:  # noqa: ANN401 - optional modules without types of their own
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        msg = f"voice: {error}; install it with: pip install 'hildaft[voice]'{also}"
        raise HilDaftError(msg) from error
