"""What was imported is known by its file, also where numbers were given out again or an import was killed."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from hildaft.data.episode_file import checksum_of, read_checksum, serialise_episode
from hildaft.data.episodes import EpisodeStore
from hildaft.data.import_ledger import ImportLedger, digest_of
from hildaft.types import Episode, HilDaftError


def episode(seed, task="pick"):
    rng = np.random.default_rng(seed)
    still = np.zeros(2, np.bool_)
    return Episode(
        task=task,
        source="demo",
        robot="A",
        seed=seed,
        policy_version=-1,
        success=True,
        h=np.zeros((3, 2), np.float32),
        features=np.zeros((3, 2), np.float32),
        proprio=np.zeros((3, 2), np.float32),
        policy_action=np.full((2, 7), np.nan, np.float32),
        human_action=np.zeros((2, 7), np.float32),
        executed_action=rng.uniform(-1, 1, (2, 7)).astype(np.float32),
        is_intervention=still,
        spoken=np.zeros(2, np.int64),
        refinement=np.zeros(2, np.int64),
        displacement_m=np.zeros((2, 3), np.float32),
        reward=np.array([0, 1], np.float32),
        terminated=np.array([False, True]),
        truncated=still,
        images={},
        encoder_hash="f00d",
    )


@pytest.fixture
def store(tmp_path):
    return EpisodeStore(tmp_path / "episodes")


def import_all(store, count=3, mapping="m"):
    """How many episodes an import of that many adds."""
    ledger = ImportLedger(store)
    missing = [seed for seed in range(count) if not ledger.has(f"name {seed}", mapping)]
    for seed in missing:
        ledger.append(f"name {seed}", episode(seed), mapping)
    return len(missing)


def test_the_checksum_of_bytes_is_that_of_their_file(store):
    store.append(episode(0))
    (summary,) = store.summaries()
    assert read_checksum(summary.path) == checksum_of(serialise_episode(episode(0))) != ""


def test_numbers_that_were_given_out_again_are_not_taken_for_the_imported_episodes(store):
    assert import_all(store) == 3
    assert import_all(store) == 0
    for summary in store.summaries():
        summary.path.unlink()
    for seed in (10, 11):
        store.append(episode(seed))
    assert import_all(store) == 3
    assert [s.seed for s in store.summaries()] == [10, 11, 0, 1, 2]
    assert import_all(store) == 0


@pytest.mark.parametrize("kill_at", [0, 1, 2])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_line_whose_episode_was_not_written_is_not_anothers(
    store, monkeypatch, kill_at, recorded
):
    real, calls = EpisodeStore.append_bytes, iter(range(9))

    def dies(self, *words):
        if next(calls) == kill_at:
            raise KeyboardInterrupt
        return real(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStore, "append_bytes", dies)
        with pytest.raises(KeyboardInterrupt):
            import_all(store)
    assert len((store.folder / "imported.jsonl").read_text().splitlines()) == kill_at + 1
    if recorded:
        store.append(episode(10))
    assert import_all(store) == 3 - kill_at
    assert sorted(s.seed for s in store.summaries() if s.seed < 10) == [0, 1, 2]
    assert import_all(store) == 0


def test_an_episode_that_got_a_higher_number_than_its_line_says_is_known(store):
    assert import_all(store) == 3
    store.set_aside(store.summaries()[-1].path)
    # Its number stays taken: the next line says 2, its file is number 3.
    assert import_all(store) == 1
    assert store.indices == (0, 1, 3)
    assert import_all(store) == 0


def test_of_two_episodes_that_are_equal_to_the_byte_each_needs_its_own_file(store):
    for name in ("one", "other"):
        ImportLedger(store).append(name, episode(0), "m")
    last = store.summaries()[-1].path
    assert all(ImportLedger(store).has(name, "m") for name in ("one", "other"))
    last.unlink()
    ledger = ImportLedger(store)
    assert (ledger.has("one", "m"), ledger.has("other", "m")) == (True, False)


def test_a_ledger_of_before_counts_by_number_and_knows_no_mapping(store):
    for seed in range(2):
        store.append(episode(seed))
    lines = [{"episode": f"name {seed}", "number": seed} for seed in range(3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (store.folder / "imported.jsonl").write_text(text)
    assert import_all(store, mapping="another") == 1
    assert [s.seed for s in store.summaries()] == [0, 1, 2]
    assert import_all(store, mapping="another") == 0


def test_another_mapping_is_refused_in_one_line(store):
    import_all(store)
    with pytest.raises(HilDaftError, match=r"episode 0 .* another mapping.* new folder") as error:
        import_all(store, mapping="corrected")
    assert "\n" not in str(error.value)
    assert len(store) == 3


@pytest.mark.parametrize("line", ["{}", "[]", "7", "{", '{"episode": "x", "number": "y"}'])
def test_a_damaged_ledger_is_one_line(store, line):
    (store.folder / "imported.jsonl").write_text(line + "\n")
    with pytest.raises(HilDaftError, match=r"ledger .* damaged .* move it away") as error:
        ImportLedger(store)
    assert "\n" not in str(error.value)


@dataclass(frozen=True, kw_only=True)
class Unit:
    size: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Meaning:
    task: str
    units: tuple[Unit, ...] = field(default_factory=lambda: (Unit(size=2.0),))


@dataclass(frozen=True, kw_only=True)
class LaterMeaning(Meaning):
    flip: bool = False


def test_a_digest_is_of_what_is_said_and_not_of_what_a_later_version_could_say():
    said = Meaning(task="pick")
    assert digest_of(said) == digest_of(Meaning(task="pick", units=(Unit(size=2.0),)))
    assert digest_of(said) == digest_of(LaterMeaning(task="pick"))
    others = [
        digest_of(LaterMeaning(task="pick", flip=True)),
        digest_of(replace(said, units=(Unit(size=3.0),))),
        digest_of(replace(said, task="assemble")),
        digest_of(said, 3),
        digest_of(None),
    ]
    assert len({digest_of(said), *others}) == 6
