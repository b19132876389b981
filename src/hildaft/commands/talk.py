"""How words are understood: `talk`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from hildaft.commands.parse import parse_words
from hildaft.teleop.phrases import parse_phrase, suggest_commands
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import NULL_COMMAND, RefinementCommand


def talk(words: Sequence[str]) -> int:
    """`hildaft talk [TEXT...] [--wav FILE | --microphone]`; exit code 1 where the words are not understood."""

    @dataclass(frozen=True)
    class TalkArguments:
        """Show how words typed or spoken are understood; no robot moves."""

        text: tyro.conf.Positional[tuple[str, ...]] = ()
        """The words; without any, lines are read until the input ends."""
        wav: Path | None = None
        """Understand a 16-bit WAV recording instead (extra `voice`)."""
        microphone: bool = False
        """Push to talk: Enter starts and Enter ends a recording (extra `voice`)."""
        frame: OperatorFrame = field(default_factory=OperatorFrame)
        """Which base axes are forward, left and up for you."""

    given = parse_words(TalkArguments, "talk", words)
    print(f"forward is {given.frame.forward}, left {given.frame.left}, up {given.frame.up} (base)")
    if given.wav is not None:
        from hildaft.teleop.voice import Recogniser, read_wav

        return _show(Recogniser().hear(read_wav(given.wav)).text, given.frame)
    if given.microphone:
        return _listen(given.frame)
    if given.text:
        return _show(" ".join(given.text), given.frame)
    understood = [_show(line.strip(), given.frame) for line in sys.stdin]
    return max(understood, default=0)


def _listen(frame: OperatorFrame) -> int:
    from hildaft.teleop.voice import PushToTalk, Recogniser, open_microphone

    def act(command: RefinementCommand) -> None:
        print(f"confirmed: {frame.words(frame.to_base(command))}")

    button = PushToTalk(Recogniser().hear, act, open_microphone)
    while input("Enter to talk, q to end: ") != "q":
        button.press()
        input("listening; Enter when done: ")
        heard = button.release()
        if _show(heard.text, frame) == 0 and input("Enter to confirm, n to discard: ") != "n":
            button.confirm()
        else:
            button.discard()
    return 0


def _show(text: str, frame: OperatorFrame) -> int:
    command = parse_phrase(text)
    if command is None:
        offers = [frame.words(frame.to_base(offer)) for offer in suggest_commands(text)]
        meant = f"; meant: {', '.join(offers)}?" if offers else ""
        print(f"{text!r}: not understood{meant}")
        return 1
    base = frame.to_base(command)
    said = "no change" if command == NULL_COMMAND else frame.words(base)
    print(f"{text!r}: {said}; base signs {base.signs}")
    return 0
