"""Learner's and worker's end of the link against each other, over a real socket."""

import contextlib
import errno
import os
import resource
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from hildaft.data.episode_file import Origin, serialise_episode
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link import wire
from hildaft.runtime.link.certs import make_certificate
from hildaft.runtime.link.client import (
    EpisodeRefusedError,
    LearnerAwayError,
    LearnerClient,
    OutOfStepError,
)
from hildaft.runtime.link.credentials import (
    ClientTls,
    ServerTls,
    is_loopback,
    make_token,
    read_tls,
    read_token,
    require_secure,
    split_address,
)
from hildaft.runtime.link.descriptors import raise_file_limit
from hildaft.runtime.link.intake import Intake
from hildaft.runtime.link.roster import Evaluation
from hildaft.runtime.link.spool import Spool
from hildaft.types import ActionScale, HilDaftError
from link_peers import FACTS, TERMS, TOKEN, linked, serving, small_episode, wait_until


@pytest.fixture
def spool(tmp_path):
    with_lines = Spool(tmp_path / "spool", "run", "arm", say=lambda line: None)
    yield with_lines
    with_lines.close()


def peer(**changes):
    fields = {"schema_version": wire.SCHEMA_VERSION, "run": "run", "worker": "arm.0", **changes}
    return pb.Peer(**fields)


def join(client, **changes):
    fields = {
        "peer": peer(),
        "robot": "point",
        "translation_m": ActionScale().translation_m,
        "rotation_rad": ActionScale().rotation_rad,
        "encoder_hash": "blobs",
        "tasks": ["reach"],
        **changes,
    }
    return client.call("Join", pb.JoinRequest(**fields))


@pytest.fixture
def learner(tmp_path):
    with serving(tmp_path / "episodes") as server:
        yield server


@pytest.fixture
def client(learner):
    client = LearnerClient(f"127.0.0.1:{learner.port}", TOKEN, None)
    yield client
    client.close()


def insert(client, sequence, previous, episode=None, *, origin=None, payload=None):
    if payload is None:
        made = origin or Origin(worker="arm.0", sequence=sequence)
        payload = serialise_episode(episode or small_episode(sequence), made)
    request = pb.InsertRequest(peer=peer(), sequence=sequence, previous=previous, episode=payload)
    return client.call("Insert", request).durable_sequence


def test_episodes_arrive_once_in_order_and_byte_for_byte(learner, spool, tmp_path):
    with linked(learner, spool) as link:
        for n in range(5):
            link.put(small_episode(10 * n))
        assert link.drain(20.0)
    store = EpisodeStore(tmp_path / "episodes")
    assert [s.origin for s in store.summaries()] == [
        Origin(worker=spool.worker, sequence=n) for n in range(1, 6)
    ]
    assert [store.read(n).h[0, 0] for n in range(5)] == [0, 10, 20, 30, 40]


def test_what_was_confirmed_is_known_after_a_restart(tmp_path, spool):
    folder = tmp_path / "episodes"
    with serving(folder) as server, linked(server, spool) as link:
        spool.commit(small_episode())
        assert link.drain(20.0)
    with serving(folder) as server, linked(server, spool) as link:
        client = LearnerClient(f"127.0.0.1:{server.port}", TOKEN, None)
        request = pb.InsertRequest(
            peer=peer(worker=spool.worker),
            sequence=1,
            episode=serialise_episode(small_episode(), Origin(worker=spool.worker, sequence=1)),
        )
        assert client.call("Insert", request).durable_sequence == 1
        client.close()
        spool.commit(small_episode(5))
        assert link.drain(20.0)
    assert len(EpisodeStore(folder)) == 2


def test_a_learner_that_comes_back_is_joined_again(tmp_path, spool):
    folder, said = tmp_path / "episodes", []
    with serving(folder) as server:
        port = server.port
        with linked(server, spool, said=said) as link:
            server.__exit__()
            wait_until(lambda: any("away" in line for line in said))
            assert link.next() is None
            spool.commit(small_episode())
            with serving(folder, address=f"127.0.0.1:{port}") as again:
                assert link.drain(30.0)
                wait_until(lambda: link.next() is not None)
                assert len(again.roster.statuses()) == 1
            link.check()


def test_order_is_kept_and_repeats_are_only_confirmed(client, tmp_path):
    join(client)
    assert insert(client, 1, 0) == 1
    assert insert(client, 1, 0) == 1
    with pytest.raises(OutOfStepError, match="1 is the last one here"):
        insert(client, 3, 2)
    # The worker says itself that it cannot deliver 2: then the gap is no loss of the link.
    assert insert(client, 3, 1) == 3
    assert insert(client, 2, 1) == 3
    [status] = client.call("Status", pb.StatusRequest(schema_version=wire.SCHEMA_VERSION)).workers
    assert (status.durable_sequence, status.episodes, status.gaps) == (3, 2, 1)
    assert len(EpisodeStore(tmp_path / "episodes")) == 2


def test_after_a_failure_of_the_store_nothing_more_is_taken(tmp_path, monkeypatch):
    store = EpisodeStore(tmp_path / "episodes")
    intake = Intake(store, EpisodeStore(tmp_path / "evaluations"), TERMS)
    payloads = {
        n: serialise_episode(small_episode(n), Origin(worker="arm.0", sequence=n)) for n in (1, 2)
    }
    assert intake.insert("arm.0", 1, 0, payloads[1]) == 1
    with monkeypatch.context() as broken:

        def fail(folder):
            raise OSError(errno.EIO, "Input/output error")

        broken.setattr("hildaft.data.episodes.sync_folder", fail)
        with pytest.raises(wire.Refusal, match="Input/output error"):
            intake.insert("arm.0", 2, 1, payloads[2])
    assert intake.arrived.is_set()
    # The disk works again, and the learner has not yet looked.
    with pytest.raises(wire.Refusal, match="Input/output error"):
        intake.insert("arm.0", 2, 1, payloads[2])
    assert intake.insert("arm.0", 1, 0, payloads[1]) == 1
    assert len(store) == 1


def test_a_repeated_episode_is_named_at_the_start_and_not_counted(tmp_path):
    store = EpisodeStore(tmp_path / "episodes")
    for sequence in (1, 2, 2, 4):
        episode = small_episode(sequence)
        payload = serialise_episode(episode, Origin(worker="arm.0", sequence=sequence))
        store.append_bytes(payload, episode.task, episode.source)
    with serving(tmp_path / "episodes") as server:
        intake = server._intake
        assert [path.name for path in intake.repeated] == ["000002-reach-online.safetensors"]
        assert intake.count == 3
        client = LearnerClient(f"127.0.0.1:{server.port}", TOKEN, None)
        assert join(client).durable_sequence == 4
        request = pb.StatusRequest(schema_version=wire.SCHEMA_VERSION)
        [status] = client.call("Status", request).workers
        assert (status.episodes, status.transitions, status.gaps) == (3, 9, 1)
        client.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"translation_m": 0.02}, "action scale"),
        ({"encoder_hash": "other"}, "encoder hash 'other'.*'blobs'"),
        ({"tasks": ["reach", "fly"]}, "'fly'.*reach, push"),
        ({"tasks": []}, "tasks none"),
        ({"robot": ""}, "robot=''"),
        ({"peer": peer(schema_version=9)}, "schema version 9.*speaks 2"),
        ({"peer": peer(run="another")}, "'another'.*'run'"),
    ],
)
def test_a_worker_that_does_not_fit_is_refused_with_the_reason(client, changes, said):
    with pytest.raises(HilDaftError, match=said) as caught:
        join(client, **changes)
    assert "\n" not in str(caught.value)


def test_a_worker_that_has_not_joined_is_told_to(client):
    with pytest.raises(OutOfStepError, match="join first"):
        insert(client, 1, 0)


def changed(**columns):
    return replace(small_episode(), **columns)


@pytest.mark.parametrize(
    ("episode", "said"),
    [
        (lambda: changed(task="fly"), "task='fly'"),
        (lambda: changed(encoder_hash="other"), "encoder_hash"),
        (lambda: changed(h=np.full((4, 4), np.nan, np.float32)), "h holds"),
        (lambda: changed(h=np.zeros((4, 5), np.float32)), "widths"),
        (lambda: changed(executed_action=np.full((3, 7), 2, np.float32)), "outside -1 to 1"),
        (lambda: changed(spoken=np.full(3, 27)), "spoken"),
        (lambda: changed(terminated=np.zeros(3, bool)), "last step"),
        (lambda: changed(images={"head": (b"x",)}), "one image"),
        (lambda: changed(success=False), "success=False, its last step True"),
        # Longer than a status may be: the worker has to hear it all the same.
        (lambda: changed(task="x" * 100_000), "task='xxx"),
        (lambda: changed(encoder_hash="é" * 100_000), "encoder_hash="),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(client, tmp_path, episode, said):
    join(client)
    with pytest.raises(EpisodeRefusedError, match=said):
        insert(client, 1, 0, episode())
    assert len(EpisodeStore(tmp_path / "episodes")) == 0
    assert insert(client, 1, 0) == 1


def test_torn_foreign_and_damaged_bytes_are_refused(client, tmp_path):
    join(client)
    whole = serialise_episode(small_episode(), Origin(worker="arm.0", sequence=1))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for payload in (b"", b"x" * 100, whole[:-1], whole[: len(whole) // 2], bytes(flipped)):
        with pytest.raises(EpisodeRefusedError):
            insert(client, 1, 0, payload=payload)
    with pytest.raises(EpisodeRefusedError, match="header says"):
        insert(client, 1, 0, origin=Origin(worker="arm.1", sequence=1))
    assert len(EpisodeStore(tmp_path / "episodes")) == 0


def test_a_peers_words_never_break_a_refusal():
    refusal = wire.Refusal(grpc.StatusCode.INVALID_ARGUMENT, "half \ud800 " + "é" * 10_000)
    assert len(refusal.reason.encode()) < 8_000
    assert refusal.reason.startswith("half \\ud800")


def test_a_refused_episode_is_kept_at_the_worker_and_the_next_one_goes_on(learner, spool, tmp_path):
    with linked(learner, spool) as link:
        spool.commit(changed(spoken=np.full(3, 27)))
        spool.commit(small_episode(7))
        assert link.drain(20.0)
    [kept] = (spool.folder / "refused").iterdir()
    assert int(kept.stem) == 1
    assert [s.origin.sequence for s in EpisodeStore(tmp_path / "episodes").summaries()] == [2]


def test_an_episode_too_large_for_the_link_is_set_aside(tmp_path, spool, monkeypatch):
    sizes = [len(serialise_episode(small_episode(steps=steps))) for steps in (3, 60)]
    most = sum(sizes) // 2
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", most)
    limits = {"grpc.max_receive_message_length": most, "grpc.max_send_message_length": most}
    options = tuple((name, limits.get(name, value)) for name, value in wire.CHANNEL_OPTIONS)
    monkeypatch.setattr(wire, "CHANNEL_OPTIONS", options)
    said = []
    with serving(tmp_path / "episodes") as server, linked(server, spool, said=said) as link:
        spool._say = said.append
        link.put(small_episode(steps=60))
        link.put(small_episode(7))
        assert link.drain(20.0)
    [kept] = (spool.folder / "refused").iterdir()
    assert int(kept.stem) == 1
    assert f"{most} are allowed" in said[0]
    assert [s.origin.sequence for s in EpisodeStore(tmp_path / "episodes").summaries()] == [2]


def test_an_episode_that_cannot_be_read_now_is_delivered_later(learner, spool, tmp_path):
    spool.commit(small_episode())
    path, away = spool.folder / "000000000001.safetensors", tmp_path / "away"
    path.rename(away)
    path.mkdir()
    said = []
    with linked(learner, spool, said=said) as link:
        wait_until(lambda: said)
        assert "episode 1 cannot be read now" in said[0]
        path.rmdir()
        away.rename(path)
        assert link.drain(30.0)
        link.check()
    assert len(EpisodeStore(tmp_path / "episodes")) == 1
    assert not (spool.folder / "damaged").exists()


def test_an_unforeseen_error_of_a_thread_ends_the_worker(learner, spool, monkeypatch):
    with linked(learner, spool) as link:

        def fail(*_):
            raise ZeroDivisionError("of a test")

        monkeypatch.setattr(spool, "read", fail)
        link.put(small_episode())
        wait_until(lambda: link._failure is not None)
        with pytest.raises(HilDaftError, match="ZeroDivisionError: of a test") as caught:
            link.next()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_weights_are_the_newest_alone(learner, spool):
    with linked(learner, spool) as link:
        for version in range(1, 20):
            learner._shelf.publish(b"w%d" % version, version)
        wait_until(lambda: link.weights is not None and link.weights.version == 19)
        assert link.weights.tensors == b"w19"
        assert link.weight_age_s < 5


def test_a_question_for_newer_weights_is_answered_when_there_are_some(learner, client):
    join(client)
    learner._shelf.publish(b"one", 1)
    first = client.call("Weights", pb.WeightsRequest(peer=peer()))
    assert first.tensors == b"one"
    question = client.begin("Weights", pb.WeightsRequest(peer=peer(), held=first.weights))
    wait_until(lambda: learner._shelf._questions)
    assert not question.done()
    learner._shelf.publish(b"two", 2)
    assert client.result(question).tensors == b"two"
    wait_until(lambda: not learner._shelf._questions)


def test_questions_that_nobody_asks_any_more_are_forgotten(learner, client):
    join(client)
    request = pb.WeightsRequest(peer=peer())
    gone = client.begin("Weights", request)
    wait_until(lambda: learner._shelf._questions)
    gone.cancel()
    wait_until(lambda: not learner._shelf._questions)
    # The same worker again, as after a cut connection: the older question is let go.
    older, newer = client.begin("Weights", request), None
    wait_until(lambda: learner._shelf._questions)
    newer = client.begin("Weights", request)
    assert client.result(older).tensors == b""
    learner._shelf.publish(b"one", 1)
    assert client.result(newer).tensors == b"one"


def test_more_questions_than_may_wait_are_answered_at_once(learner, client, monkeypatch):
    monkeypatch.setattr("hildaft.runtime.link.server._WAITING", 0)
    join(client)
    assert client.call("Weights", pb.WeightsRequest(peer=peer())).tensors == b""
    assert client.describe().run == "run"


def test_calls_that_would_stay_open_for_ever_are_refused(learner):
    with grpc.insecure_channel(f"127.0.0.1:{learner.port}") as channel:
        call = channel.stream_unary(f"/{wire.SERVICE}/Describe")
        unsent, metadata = threading.Event(), (("authorization", f"Bearer {TOKEN}"),)

        def silent():
            unsent.wait(60)
            yield b""

        for timeout in (None, 30):
            with pytest.raises(grpc.RpcError) as caught:
                call(silent(), metadata=metadata, timeout=timeout)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "a deadline is missing" in caught.value.details()
        # Peers that say nothing give their room back at their deadline.
        calls = [call.future(silent(), metadata=metadata, timeout=1) for _ in range(40)]
        client = LearnerClient(f"127.0.0.1:{learner.port}", TOKEN, None)
        assert client.describe().run == "run"
        client.close()
        unsent.set()
        for one in calls:
            one.cancel()


def test_wrong_tokens_and_unknown_methods_are_typed_errors(learner):
    address = f"127.0.0.1:{learner.port}"
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        client = LearnerClient(address, token, None)
        with pytest.raises(HilDaftError, match="token is missing or wrong"):
            client.describe()
        client.close()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/hildaft.link.v1.Learner/Erase")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "data", "code"),
    [
        ("Join", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        ("Report", b"\x12" + b"\x80" * 20, grpc.StatusCode.INVALID_ARGUMENT),
        ("Join", b"\x12" + b"\xff" * (1 << 17), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("Insert", b"\x00" * ((64 << 20) + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("Join", pb.JoinRequest(peer=peer(worker="../etc")).SerializeToString(), "NAME.SPOOL"),
    ],
)
def test_malformed_and_oversized_messages_are_typed_errors(learner, method, data, code):
    options = (("grpc.max_send_message_length", -1),)
    with grpc.insecure_channel(f"127.0.0.1:{learner.port}", options) as channel:
        call = channel.unary_unary(f"/{wire.SERVICE}/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(
                data,
                metadata=(("authorization", f"Bearer {TOKEN}"),),
                timeout=wire.DEADLINE_S[method],
            )
    if isinstance(code, str):
        assert code in caught.value.details()
    else:
        assert caught.value.code() is code


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    make_certificate(folder, "learner", ["127.0.0.1", "lab"])
    make_certificate(folder, "arm", [])
    make_certificate(folder, "other", [])
    foreign = tmp_path_factory.mktemp("foreign")
    make_certificate(foreign, "arm", [])
    return folder, foreign


def test_mutual_tls_knows_its_own(certificates, tmp_path):
    folder, foreign = certificates
    with serving(tmp_path, tls=ServerTls(*read_tls(folder, "learner"))) as server:
        address = f"127.0.0.1:{server.port}"
        good = LearnerClient(address, TOKEN, ClientTls(*read_tls(folder, "arm")))
        assert join(good).durable_sequence == 0
        other = LearnerClient(address, TOKEN, ClientTls(*read_tls(folder, "other")))
        with pytest.raises(HilDaftError, match="the certificate is for other"):
            join(other)
        stranger = ClientTls((folder / "ca.crt").read_bytes(), *read_tls(foreign, "arm")[1:])
        for tls in (None, stranger):
            bad = LearnerClient(address, TOKEN, tls)
            with pytest.raises(LearnerAwayError):
                bad.describe()
            bad.close()
        for client in (good, other):
            client.close()


def test_keys_are_private_and_never_overwritten(certificates):
    folder, _ = certificates
    assert {p.stat().st_mode & 0o777 for p in folder.glob("*.key")} == {0o600}
    before = (folder / "arm.key").read_bytes()
    with pytest.raises(HilDaftError, match="exists already"):
        make_certificate(folder, "arm", [])
    with pytest.raises(HilDaftError):
        make_certificate(folder, "../arm", [])
    assert (folder / "arm.key").read_bytes() == before
    with pytest.raises(HilDaftError, match="hildaft certs missing"):
        read_tls(folder, "missing")


def test_beyond_this_machine_there_is_no_link_without_tls(tmp_path):
    for address in ("0.0.0.0:1", "10.0.0.1:1", "lab:1", "[::]:1"):
        assert not is_loopback(address)
        with pytest.raises(HilDaftError, match="needs TLS"):
            require_secure(address, None)
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert is_loopback(address)
    for address in ("", "host", ":1", "host:x", "host:99999"):
        with pytest.raises(HilDaftError, match="HOST:PORT"):
            split_address(address)
    with pytest.raises(HilDaftError, match="needs TLS"), serving(tmp_path, address="0.0.0.0:0"):
        pass


def test_no_proxy_of_the_environment_sees_the_link(learner, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        client = LearnerClient(f"127.0.0.1:{learner.port}", TOKEN, None)
        try:
            assert client.describe().run == "run"
        finally:
            client.close()
        with pytest.raises(BlockingIOError):
            proxy.accept()


def closed(sockets):
    """Of these, the ones the other side has closed."""
    ended = []
    for one in sockets:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while one.recv(1_000):
                pass
            ended.append(one)
    return ended


@pytest.fixture
def idle():
    """Makes connections to a port over which nothing is ever said."""
    with contextlib.ExitStack() as stack:
        yield lambda port, count: [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(count)
        ]


def test_connections_beyond_the_limit_are_closed(tmp_path, monkeypatch, idle):
    monkeypatch.setattr("hildaft.runtime.link.server._CONNECTIONS", 4)
    monkeypatch.setattr("hildaft.runtime.link.server._HANDSHAKE_MS", 600_000)
    with serving(tmp_path / "episodes") as server:
        sockets = idle(server.port, 10)
        wait_until(lambda: len(closed(sockets)) == 6)


def test_connections_take_half_of_the_files_at_most(tmp_path, monkeypatch, idle):
    monkeypatch.setattr("hildaft.runtime.link.server.raise_file_limit", lambda: 8)
    monkeypatch.setattr("hildaft.runtime.link.server._HANDSHAKE_MS", 600_000)
    with serving(tmp_path / "episodes") as server:
        sockets = idle(server.port, 10)
        wait_until(lambda: len(closed(sockets)) == 6)


def test_silent_connections_give_their_room_back(tmp_path, monkeypatch, idle):
    monkeypatch.setattr("hildaft.runtime.link.server._CONNECTIONS", 4)
    monkeypatch.setattr("hildaft.runtime.link.server._HANDSHAKE_MS", 500)
    with serving(tmp_path / "episodes") as server:
        sockets = idle(server.port, 10)
        wait_until(lambda: len(closed(sockets)) == 10)
        client = LearnerClient(f"127.0.0.1:{server.port}", TOKEN, None)
        assert client.describe().run == "run"
        client.close()


@pytest.fixture
def file_limit():
    """Sets the soft limit on open files; puts it back afterwards."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limits[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_learner_raises_its_limit_on_open_files(tmp_path, file_limit):
    file_limit(200)
    with serving(tmp_path / "episodes"):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == (4_096 if hard == resource.RLIM_INFINITY else min(4_096, hard))
    file_limit(soft + 1 if soft < hard else soft)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_too_many_open_files_are_no_end_of_the_learner(tmp_path, file_limit):
    store = EpisodeStore(tmp_path / "episodes")
    intake = Intake(store, EpisodeStore(tmp_path / "evaluations"), TERMS)
    payload = serialise_episode(small_episode(), Origin(worker="arm.0", sequence=1))
    free = os.dup(0)
    os.close(free)
    # The lowest free number is beyond the limit: the kernel opens nothing more.
    file_limit(free)
    with pytest.raises(wire.Refusal, match="ulimit") as caught:
        intake.insert("arm.0", 1, 0, payload)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert intake.failure is None
    file_limit(free + 64)
    assert intake.insert("arm.0", 1, 0, payload) == 1
    assert len(store) == 1


def test_a_taken_address_is_one_line(learner, tmp_path):
    address = f"127.0.0.1:{learner.port}"
    with pytest.raises(HilDaftError, match="may be taken"), serving(tmp_path, address=address):
        pass


def test_the_token_is_made_once_and_private(tmp_path, monkeypatch):
    path = tmp_path / "token"
    token = make_token(path)
    assert make_token(path) == token == read_token(path)
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("HILDAFT_TOKEN", token)
    assert read_token(None) == token
    path.write_text("short")
    with pytest.raises(HilDaftError, match="16 or more"):
        read_token(path)
    with pytest.raises(HilDaftError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_every_method_has_its_messages_and_deadline():
    service = pb.DESCRIPTOR.services_by_name["Learner"]
    assert set(wire.REQUESTS) == set(wire.REPLIES) == set(wire.DEADLINE_S)
    assert service.full_name == wire.SERVICE
    for method in service.methods:
        assert wire.REQUESTS[method.name].DESCRIPTOR is method.input_type
        assert wire.REPLIES[method.name].DESCRIPTOR is method.output_type
        assert issubclass(wire.REQUESTS[method.name], Message)


def test_the_workers_end_loads_no_torch():
    check = "import sys, hildaft.runtime.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_tasks_are_shared_out_over_workers(learner, spool):
    roster = learner.roster
    for name in ("a.0", "b.0", "c.0"):
        roster.join(
            name,
            pb.JoinRequest(
                robot="point",
                translation_m=ActionScale().translation_m,
                rotation_rad=ActionScale().rotation_rad,
                encoder_hash="blobs",
                tasks=FACTS.tasks,
            ),
        )
    first, second, third = (roster.assign(name) for name in ("a.0", "b.0", "c.0"))
    assert {first.task, second.task} == {"reach", "push"}
    assert first.activity == pb.Assignment.DEMONSTRATE
    assert third.activity == pb.Assignment.WAIT
    roster.stage = "online"
    assigned = [roster.assign(name) for name in ("a.0", "b.0", "c.0")]
    assert {a.activity for a in assigned} == {pb.Assignment.ROLLOUT}
    assert {a.task for a in assigned} == {"reach", "push"}
    assert len({a.seed for a in assigned}) == 3


def test_an_evaluation_meets_each_scene_once_whoever_leaves(tmp_path):
    folder, now = tmp_path / "episodes", [0.0]
    with serving(folder) as server:
        roster = server.roster
        roster._clock = lambda: now[0]
        client = LearnerClient(f"127.0.0.1:{server.port}", TOKEN, None)
        for name in ("arm.0", "b.0"):
            join(client, peer=peer(worker=name))
        roster.stage = "evaluation"
        assert roster.assign("arm.0").activity == pb.Assignment.WAIT
        scenes = (("reach", 7), ("push", 8))
        roster.evaluation = Evaluation(scenes=scenes, weights="boot-3", version=3)
        # Each of the two can only reach: nobody is left for the other scene.
        first = roster.assign("arm.0")
        assert (first.activity, first.task, first.seed, first.weights) == (
            pb.Assignment.EVALUATE,
            "reach",
            7,
            "boot-3",
        )
        assert roster.assign("b.0").activity == pb.Assignment.WAIT
        # A robot that left has met nothing.
        now[0] = 10.0
        assert roster.assign("b.0").seed == 7
        episode = changed(source="eval", seed=7, policy_version=3)
        assert insert(client, 1, 0, episode) == 1
        assert insert(client, 2, 1) == 2
        assert roster.assign("b.0").activity == pb.Assignment.WAIT
        [status, _] = client.call(
            "Status", pb.StatusRequest(schema_version=wire.SCHEMA_VERSION)
        ).workers
        assert (status.durable_sequence, status.episodes, status.gaps) == (2, 1, 0)
        client.close()
    # Kept apart from what is learned from, and known again after a restart.
    assert [s.source for s in EpisodeStore(folder).summaries()] == ["online"]
    with serving(folder) as server:
        intake = server._intake
        assert intake.evaluated == {("reach", 7, 3): 0}
        assert (intake.tally("arm.0").sequence, intake.tally("arm.0").gaps) == (2, 0)
