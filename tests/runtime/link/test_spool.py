import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hildaft.data.episode_file import Origin, parse_episode
from hildaft.runtime.link.spool import Spool, SpoolBusyError
from hildaft.types import HilDaftError
from link_peers import act, observe, small_builder, small_episode


@pytest.fixture
def said():
    return []


def open_spool(folder, said, **options):
    return Spool(folder, "run", "arm", say=said.append, **options)


def test_episodes_are_numbered_kept_and_freed(tmp_path, said):
    spool = open_spool(tmp_path, said)
    assert [spool.commit(small_episode(n)) for n in (0, 10, 20)] == [1, 2, 3]
    summary, episode = parse_episode(0, Path("x"), spool.read(2))
    assert summary.origin == Origin(worker=spool.worker, sequence=2)
    np.testing.assert_array_equal(episode.h, small_episode(10).h)
    used = spool.bytes_used
    spool.acknowledge(2)
    assert spool.pending() == [3]
    assert 0 < spool.bytes_used < used
    spool.close()
    again = open_spool(tmp_path, said)
    assert (again.worker, again.pending(), again.acknowledged) == (spool.worker, [3], 2)
    again.acknowledge(3)
    again.close()
    assert open_spool(tmp_path, said).commit(small_episode()) == 4
    assert said == []


def test_a_new_spool_is_another_worker(tmp_path, said):
    one, other = open_spool(tmp_path / "a", said), open_spool(tmp_path / "b", said)
    assert one.worker != other.worker
    assert one.worker.startswith("arm.")


def test_two_processes_cannot_share_a_spool(tmp_path, said):
    spool = open_spool(tmp_path, said)
    with pytest.raises(HilDaftError, match="another worker uses it"):
        open_spool(tmp_path, said)
    spool.close()
    open_spool(tmp_path, said)


def interrupted(spool, steps, source="online"):
    builder = small_builder(spool, source=source)
    observe(builder, 0)
    for step in range(steps):
        act(builder, human=step == 1)
        observe(builder, step + 1)


def test_an_interrupted_episode_is_kept_as_truncated(tmp_path, said):
    spool = open_spool(tmp_path, said)
    interrupted(spool, 5)
    spool.close()
    again = open_spool(tmp_path, said)
    assert again.pending() == [1]
    _, episode = parse_episode(0, Path("x"), again.read(1))
    assert len(episode) == 5
    assert episode.truncated.tolist() == [False] * 4 + [True]
    assert not episode.terminated.any()
    assert episode.is_intervention.tolist() == [False, True, False, False, False]
    np.testing.assert_array_equal(episode.h[:, 0], np.arange(6))
    assert len(episode.images["head"]) == 6
    assert "interrupted after 5 steps" in said[0]


def test_an_unfinished_demonstration_and_an_episode_without_steps_are_no_data(tmp_path, said):
    spool = open_spool(tmp_path, said)
    interrupted(spool, 4, source="demo")
    spool.close()
    spool = open_spool(tmp_path, said)
    assert "demonstration was dropped" in said[0]
    interrupted(spool, 0)
    spool.close()
    assert open_spool(tmp_path, said).pending() == []


def test_a_finished_episode_is_not_recovered_twice(tmp_path, said):
    spool = open_spool(tmp_path, said)
    episode = small_episode(0, journal=spool)
    journal = (spool.folder / "journal").read_bytes()
    spool.commit(episode)
    # As if the kill had come between the rename and the clearing of the journal.
    (spool.folder / "journal").write_bytes(journal)
    spool.close()
    again = open_spool(tmp_path, said)
    assert again.pending() == [1]
    assert said == []


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_tail_is_cut_and_the_whole_steps_before_it_are_kept(tmp_path_factory, data):
    folder, said = tmp_path_factory.mktemp("spool"), []
    spool = open_spool(folder, said)
    interrupted(spool, 6)
    journal = spool.folder / "journal"
    content = bytearray(journal.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    journal.write_bytes(content)
    spool.close()
    again = open_spool(folder, said)
    kept = 0
    for sequence in again.pending():
        _, episode = parse_episode(0, Path("x"), again.read(sequence))
        kept = len(episode)
        np.testing.assert_array_equal(episode.h[:, 0], np.arange(kept + 1))
    assert kept < 6
    assert any("cut off" in line for line in said) or len(content) == 0 or kept == 0
    again.close()


def test_a_damaged_episode_is_set_aside_and_said(tmp_path, said):
    spool = open_spool(tmp_path, said)
    for n in range(2):
        spool.commit(small_episode(n))
    path = sorted(spool.folder.glob("0*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-7])
    assert spool.read(1) is None
    assert (spool.folder / "damaged" / path.name).exists()
    assert "damaged" in said[0]
    assert spool.pending() == [2]
    assert spool.bytes_used == sum(p.stat().st_size for p in spool.folder.glob("0*.safetensors"))


@pytest.mark.parametrize("where", ["refused", "damaged"])
def test_a_number_set_aside_is_not_given_out_again(tmp_path, said, where):
    spool = open_spool(tmp_path, said)
    for n in range(2):
        spool.commit(small_episode(n))
    spool.acknowledge(1)
    spool._set_aside(2, where, "a test")
    [kept] = (spool.folder / where).iterdir()
    spool.close()
    again = open_spool(tmp_path, said)
    assert again.commit(small_episode()) == 3
    again.close()
    assert [p.name for p in (spool.folder / where).iterdir()] == [kept.name]


def test_what_was_set_aside_is_never_overwritten(tmp_path, said):
    spool = open_spool(tmp_path, said)
    spool.commit(small_episode())
    (spool.folder / "refused").mkdir()
    earlier = spool.folder / "refused" / "000000000001.safetensors"
    earlier.write_bytes(b"earlier")
    spool.refuse(1, "a test")
    assert earlier.read_bytes() == b"earlier"
    assert (spool.folder / "refused" / "000000000001-1.safetensors").stat().st_size > 100
    assert "000000000001-1" in said[0]


def test_a_journal_set_aside_is_never_overwritten(tmp_path, said):
    spool = open_spool(tmp_path, said)
    for value in (1, 2):
        spool.begin(small_builder()._head())
        for _ in range(2):
            spool.append({"unknown": np.full(1, value)})
        spool.close()
        spool = open_spool(tmp_path, said)
    spool.close()
    first, second = (spool.folder / "damaged" / name for name in ("journal", "journal-1"))
    assert first.read_bytes() != second.read_bytes()


def test_what_is_confirmed_meanwhile_is_no_damage(tmp_path, said):
    spool = open_spool(tmp_path, said)
    spool.commit(small_episode())
    [sequence] = spool.pending()
    # As when the worker joins again while an episode is on its way.
    spool.acknowledge(1)
    assert spool.read(sequence) is None
    spool.refuse(sequence, "a test")
    assert said == []


def test_an_episode_that_somebody_removed_is_said_and_passed_over(tmp_path, said):
    spool = open_spool(tmp_path, said)
    for n in range(2):
        spool.commit(small_episode(n))
    (spool.folder / "000000000001.safetensors").unlink()
    assert spool.read(1) is None
    assert "episode 1 is gone" in said[0]
    assert spool.pending() == [2]


def test_a_passing_error_is_no_damage(tmp_path, said):
    spool = open_spool(tmp_path, said)
    spool.commit(small_episode())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        # The lowest free number is beyond the limit: the kernel opens nothing more.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        with pytest.raises(SpoolBusyError, match="Too many open files"):
            spool.read(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert spool.read(1) is not None
    assert said == []


@pytest.mark.parametrize("run", ["", "../run", "a/b", "/nowhere", ".", "..", "x" * 41, "a\n"])
def test_a_run_that_is_no_name_makes_no_folder(tmp_path, said, run):
    with pytest.raises(HilDaftError, match="run_name"):
        Spool(tmp_path / "spool", run, "arm", say=said.append)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_identity_is_refused_with_the_way_out(tmp_path, said):
    (tmp_path / "identity").write_text("")
    with pytest.raises(HilDaftError, match=r"identity.*hildaft status.*--spool"):
        open_spool(tmp_path, said)


def test_the_disk_budget_says_what_to_do(tmp_path, said):
    spool = open_spool(tmp_path, said, budget_bytes=1)
    assert spool.shortage is None
    spool.commit(small_episode())
    assert "--spool-gib" in spool.shortage
    spool.acknowledge(1)
    assert spool.shortage is None


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, said):
    spool = open_spool(tmp_path, said)
    spool.commit(small_episode())
    builder = small_builder(spool)
    observe(builder, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The kernel refuses bytes beyond this size exactly as it does on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, limits[1]))
        with pytest.raises(HilDaftError, match="free space"):  # noqa: PT012 - some step fails
            for step in range(50):
                act(builder)
                observe(builder, step + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    spool.close()
    again = open_spool(tmp_path, said)
    assert again.pending() == [1, 2]
    _, episode = parse_episode(0, Path("x"), again.read(2))
    assert len(episode) > 0


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from hildaft.runtime.link.spool import Spool
from link_peers import act, observe, small_builder, small_episode
spool = Spool(Path(sys.argv[1]), "run", "arm", say=lambda line: None)
print(0, flush=True)
first = 1
while True:
    spool.commit(small_episode(first, 20, journal=spool))
    print(first, flush=True)
    first += 100
"""


def test_a_killed_worker_finds_everything_again(tmp_path, said):
    announced = []
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parents[2])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        announced.append(3 + len(rest.split()))
        spool = open_spool(tmp_path, said)
        pending = spool.pending()
        assert pending == list(range(1, len(pending) + 1))
        assert len(pending) >= sum(announced)
        assert all(spool.read(n) is not None for n in pending)
        spool.close()
