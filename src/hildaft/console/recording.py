"""A folder of recorded episodes: what is kept, what waits for a verdict, what was refused, and the one under way."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from hildaft.data.episode_file import EpisodeSummary
from hildaft.data.episodes import EpisodeStore
from hildaft.data.idle_steps import without_idle_steps
from hildaft.data.journal import JournalFile
from hildaft.runtime.sole_use import sole_use
from hildaft.teleop.talk import label_tweaks
from hildaft.types import Episode, RefinementCommand, Source

PENDING: Final = "pending"
"""Folder of episodes nobody has judged yet."""
DISCARDED: Final = "discarded"


@final
class Recording:
    """Episodes of one folder: `episodes` are kept, `pending` wait for a verdict, `discarded` were refused.

    Each step is in the journal before the next, and an episode is on disk before anybody is asked about it, so a
    crash loses none; it moves by being written to its new place before it leaves the old one, so a crash between the
    two is seen as what it is: a copy.

    Args:
        folder: holds the three.
        say: takes what a person should know of an episode that was interrupted.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self.kept: Final = EpisodeStore(folder / "episodes")
        self._pending: Final = EpisodeStore(folder / PENDING)
        self._discarded: Final = EpisodeStore(folder / DISCARDED)
        self.journal: Final = JournalFile(folder / "journal", label_tweaks, say)
        """Takes the steps of the episode under way."""

    @contextmanager
    def claimed(self) -> Generator[None]:
        """Keeps other recorders out, and takes up the episode that a crash has interrupted.

        Raises:
            HilDaftError: somebody else records into this folder.
        """
        with sole_use(self._folder, "record", "recorder"):
            self._take_up()
            try:
                yield
            finally:
                # What an error has interrupted stays there, for the next session.
                self.journal.close()

    def _take_up(self) -> None:
        left = self.journal.replay()
        # One that is stored already was killed before its journal was cleared.
        if left is not None and left.episode.seed not in self.seeds(left.episode.task):
            episode, told = left.episode, f"{left.episode.task}: the episode under way was"
            told = f"{told} interrupted after {len(episode)} steps"
            if episode.source == "demo":
                episode = without_idle_steps(episode, left.head.action_scale, label_tweaks)
            if episode.source == "demo" and not episode.terminated[-1]:
                self._discarded.append(episode)
                self._say(f"{told}; half a demonstration is none: it lies in {DISCARDED}")
            else:
                self._pending.append(episode)
                self._say(f"{told}; it waits for your verdict")
        self.journal.discard()

    def count(self, task: str, source: Source = "demo") -> int:
        """Episodes of a task and kind kept so far."""
        return sum(s.task == task and s.source == source for s in self.kept.summaries())

    def seeds(self, task: str) -> set[int]:
        """Scenes of a task that were shown already, whatever became of them."""
        stores = (self.kept, self._pending, self._discarded)
        return {s.seed for store in stores for s in store.summaries() if s.task == task}

    def add(self, episode: Episode) -> int:
        """Stores an episode to be judged; returns its number among the pending ones."""
        index = self._pending.append(episode)
        self.journal.discard()
        return index

    def pending(self) -> list[tuple[int, Episode]]:
        """Episodes that wait for a verdict; one that is kept already was caught between two folders and is dropped."""
        done = {
            (s.task, s.seed) for store in (self.kept, self._discarded) for s in store.summaries()
        }
        waiting: list[tuple[int, Episode]] = []
        for index, episode in list(self._pending.iterate()):
            if (episode.task, episode.seed) in done:
                self._forget(index)
            else:
                waiting.append((index, episode))
        return waiting

    def settle(self, index: int, keep: bool | None) -> None:
        """Moves a pending episode to where it belongs; without a verdict it stays for the next session."""
        if keep is None:
            return
        episode = self._pending.read(index)
        (self.kept if keep else self._discarded).append(episode)
        self._forget(index)

    def _forget(self, index: int) -> None:
        for summary in self._pending.summaries():
            if summary.index == index:
                summary.path.unlink()

    def summary(self, words: Callable[[RefinementCommand], str]) -> str:
        """What the folder holds, one line per task and kind; `words` names the labels of the corrections."""
        summaries = self.kept.summaries()
        shown = sum(s.source == "demo" for s in summaries)
        corrected = len(summaries) - shown
        lines = [f"{self.kept.folder}: {shown} demonstrations, {corrected} episodes of a policy"]
        for task in sorted({s.task for s in summaries}):
            for source in ("demo", "online"):
                own = [s for s in summaries if s.task == task and s.source == source]
                if own:
                    lines += self._line(own, words)
        refused, waiting = len(self._discarded), len(self._pending)
        return "\n".join([*lines, f"  discarded {refused}, waiting for review {waiting}"])

    def _line(
        self, own: list[EpisodeSummary], words: Callable[[RefinementCommand], str]
    ) -> list[str]:
        steps, by_hand = [s.steps for s in own], sum(s.interventions for s in own)
        line = (
            f"  {own[0].task:<10} {len(own):>3} kept, {sum(s.success for s in own)} successful,"
            f" {sum(steps)} steps ({min(steps)} to {max(steps)})"
        )
        if own[0].source == "demo":
            return [line]
        said: Counter[str] = Counter()
        for summary in own:
            episode = self.kept.read(summary.index)
            labels = episode.refinement[episode.is_intervention].tolist()
            said.update(words(RefinementCommand.from_index(label)) for label in labels)
        named = ", ".join(f"{name} {count}" for name, count in said.most_common())
        return [
            f"{line}, {by_hand} by hand ({by_hand / sum(steps):.0%})",
            *([f"             labels: {named}"] if said else []),
        ]
