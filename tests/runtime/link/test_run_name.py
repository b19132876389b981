"""The name of a run: durable at the learner, and no path of its choice at the worker."""

import errno
import os
import threading
from dataclasses import replace

import pytest

from hildaft.build_remote import WorkerOptions, _run_name, run_worker
from hildaft.types import HilDaftError
from link_peers import TERMS, TOKEN, serving


def test_a_run_keeps_its_name(tmp_path):
    name = _run_name(tmp_path)
    assert _run_name(tmp_path) == name
    assert [path.name for path in tmp_path.iterdir()] == ["run_name"]
    (tmp_path / "run_name").write_text(f"{name}\n")
    assert _run_name(tmp_path) == name


def test_a_name_that_is_not_on_disk_is_not_used(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:

        def fail(descriptor):
            raise OSError(errno.EIO, "Input/output error")

        broken.setattr(os, "fsync", fail)
        with pytest.raises(HilDaftError, match=r"run_name: Input/output error.*resume"):
            _run_name(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b" \n", b"../up", b"\xff\xfe", b"a b"])
def test_a_damaged_name_is_refused_with_the_way_out(tmp_path, content):
    (tmp_path / "run_name").write_bytes(content)
    with pytest.raises(HilDaftError, match=r"run_name.*write the name back") as caught:
        _run_name(tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run_name").read_bytes() == content


def worker(learner, spool):
    options = WorkerOptions(
        robot="A",
        learner=f"127.0.0.1:{learner.port}",
        name="arm",
        token=TOKEN,
        tls=None,
        spool=spool,
        spool_bytes=1 << 30,
        tasks=(),
        max_weight_age_s=300.0,
    )
    return run_worker(options, say=lambda line: None, stop=threading.Event())


def test_a_learners_run_is_no_path_at_the_worker(tmp_path):
    terms = replace(TERMS, run="../../up")
    said = pytest.raises(HilDaftError, match=r"run='../../up'.*run_name")
    with serving(tmp_path / "learner" / "episodes", terms=terms) as learner, said:
        worker(learner, tmp_path / "spool" / "arm")
    assert [path.name for path in tmp_path.iterdir()] == ["learner"]


def test_a_config_that_cannot_be_kept_is_one_line(tmp_path):
    (tmp_path / "spool" / "run" / "config.yaml").mkdir(parents=True)
    said = pytest.raises(HilDaftError, match=r"config.yaml: Is a directory")
    with serving(tmp_path / "learner" / "episodes") as learner, said:
        worker(learner, tmp_path / "spool")
