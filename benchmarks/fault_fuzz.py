"""Bad peers against a live learner: malformed, oversized, unauthenticated, wrong-version and truncated messages."""

import random
import socket
from collections import Counter
from pathlib import Path

import grpc
import numpy as np

from fault_peers import RUN, TASKS, TOKEN
from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.episode_file import Origin, serialise_episode
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link import wire
from hildaft.teleop.talk import label_tweaks
from hildaft.types import ActionScale, Encoded, Observation

TYPED = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNIMPLEMENTED,
}


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def good_episode(worker: str, sequence: int) -> bytes:
    builder = EpisodeBuilder(
        task=TASKS[0],
        source="online",
        robot="bad",
        seed=0,
        policy_version=0,
        encoder_hash="counts",
        action_scale=ActionScale(),
    )
    for step in range(4):
        image = np.zeros((8, 8, 3), np.uint8)
        proprio = np.array([0, step], np.float32)
        encoded = Encoded(
            h=np.zeros(4, np.float32), features=np.zeros(2, np.float32), proprio=proprio
        )
        builder.observe(Observation(images={"head": image}, proprio=proprio), encoded)
        if step < 3:
            action = np.zeros(7, np.float32)
            builder.act(
                policy_action=action,
                human_action=None,
                executed_action=action,
                reward=0.0,
                terminated=False,
                truncated=step == 2,
            )
    return serialise_episode(builder.build(label_tweaks), Origin(worker=worker, sequence=sequence))


class BadPeer:
    """Makes one bad call after another; each has to be refused with a typed error."""

    def __init__(self, port: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.port = port
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", (("grpc.max_send_message_length", -1),)
        )
        self.peer = pb.Peer(schema_version=wire.SCHEMA_VERSION, run=RUN, worker="bad.0")
        self.counts: Counter[str] = Counter()
        join = pb.JoinRequest(
            peer=self.peer,
            robot="bad",
            translation_m=ActionScale().translation_m,
            rotation_rad=ActionScale().rotation_rad,
            encoder_hash="counts",
            tasks=TASKS,
        )
        self.whole = {
            "Join": join,
            "Report": pb.ReportRequest(peer=self.peer, state="acting"),
            "Insert": pb.InsertRequest(
                peer=self.peer, sequence=1, episode=good_episode("bad.0", 1)
            ),
        }
        self.call("Join", join.SerializeToString(), TOKEN)

    def call(self, method: str, data: bytes, token: str) -> None:
        metadata = (("authorization", f"Bearer {token}"),)
        call = self.channel.unary_unary(f"/{wire.SERVICE}/{method}")
        # As long as the learner allows, nearly: a busy machine is no untyped answer.
        call(data, metadata=metadata, timeout=1.9 * wire.DEADLINE_S.get(method, 5.0))

    def attack(self) -> None:
        kind = self.rng.choice(
            [
                "token",
                "version",
                "run",
                "noise",
                "truncated",
                "flipped",
                "order",
                "method",
                "episode",
                "socket",
            ]
        )
        if self.rng.random() < 0.002:
            kind = "oversized"
        self.counts["malformed_sent"] += 1
        self.counts[f"malformed_{kind}"] += 1
        if kind == "socket":
            self.on_socket()
            return
        try:
            self.call(*getattr(self, f"make_{kind}")())
        except grpc.RpcError as error:
            if error.code() not in TYPED:
                self.counts[f"untyped_{error.code().name}"] += 1
            return
        self.counts["malformed_accepted"] += 1
        self.counts[f"accepted_{kind}"] += 1

    def make_token(self) -> tuple[str, bytes, str]:
        method = self.rng.choice(list(self.whole))
        token = TOKEN[: self.rng.randrange(len(TOKEN))] + self.rng.choice(["", "x", "Bearer"])
        return method, self.whole[method].SerializeToString(), token

    def make_version(self) -> tuple[str, bytes, str]:
        method = self.rng.choice(list(self.whole))
        message = type(self.whole[method]).FromString(self.whole[method].SerializeToString())
        message.peer.schema_version = self.rng.choice(
            [0, wire.SCHEMA_VERSION - 1, wire.SCHEMA_VERSION + 1, 2**32 - 1]
        )
        return method, message.SerializeToString(), TOKEN

    def make_run(self) -> tuple[str, bytes, str]:
        method = self.rng.choice(list(self.whole))
        message = type(self.whole[method]).FromString(self.whole[method].SerializeToString())
        message.peer.run = "".join(self.rng.choices("abc/.\0", k=self.rng.randrange(40)))
        return method, message.SerializeToString(), TOKEN

    def make_noise(self) -> tuple[str, bytes, str]:
        method = self.rng.choice(list(wire.REQUESTS))
        # A first byte that opens no field: what follows cannot be an old or an empty message.
        return method, b"\x07" + self.rng.randbytes(self.rng.randrange(2000)), TOKEN

    def make_truncated(self) -> tuple[str, bytes, str]:
        data = self.whole["Insert"].SerializeToString()
        return "Insert", data[: self.rng.randrange(len(data))], TOKEN

    def make_flipped(self) -> tuple[str, bytes, str]:
        episode = bytearray(self.whole["Insert"].episode)
        for _ in range(self.rng.randint(1, 4)):
            episode[self.rng.randrange(len(episode))] ^= self.rng.randint(1, 255)
        if bytes(episode) == self.whole["Insert"].episode:
            episode[0] ^= 1
        message = pb.InsertRequest(peer=self.peer, sequence=1, episode=bytes(episode))
        return "Insert", message.SerializeToString(), TOKEN

    def make_order(self) -> tuple[str, bytes, str]:
        sequence = self.rng.choice([0, 1, 2, 3, 2**63])
        previous = self.rng.choice([n for n in (1, 2, 7, 2**62) if n])
        message = pb.InsertRequest(
            peer=self.peer,
            sequence=sequence,
            previous=previous,
            episode=self.whole["Insert"].episode,
        )
        return "Insert", message.SerializeToString(), TOKEN

    def make_method(self) -> tuple[str, bytes, str]:
        return self.rng.choice(["Erase", "", "insert", "../Insert", "Join2"]), b"", TOKEN

    def make_episode(self) -> tuple[str, bytes, str]:
        """A whole episode that says it is another worker's, or another number."""
        worker, sequence = self.rng.choice([("bad.1", 1), ("bad.0", 2), ("arm", 1), ("", 0)])
        episode = good_episode(worker, sequence)
        message = pb.InsertRequest(peer=self.peer, sequence=1, episode=episode)
        return "Insert", message.SerializeToString(), TOKEN

    def make_oversized(self) -> tuple[str, bytes, str]:
        size = wire.MAX_MESSAGE_BYTES + self.rng.randint(1, 1 << 20)
        return self.rng.choice(["Insert", "Join", "Status"]), b"\x00" * size, TOKEN

    def on_socket(self) -> None:
        """No gRPC at all: the connection has to be closed or ignored, never answered with success."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as raw:
            raw.sendall(
                self.rng.choice(
                    [
                        b"GET / HTTP/1.1\r\n\r\n",
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.rng.randbytes(200),
                        self.rng.randbytes(500),
                        b"",
                    ]
                )
            )


def fuzz(root: Path, wanted: int, seed: int) -> dict[str, float]:
    """So many bad calls against a learner that goes on serving an honest worker."""
    from faults import Peer, check, finish, free_port, wait_for_steps

    port = free_port()
    learner_folder, folder = root / "learner", root / "arm"
    learner_folder.mkdir(parents=True)
    learner = Peer(["learner", str(learner_folder), str(port)], root / "learner.log")
    worker = Peer(["worker", str(folder), str(port), "--hz", "20"], root / "arm.log")
    learner.start()
    worker.start()
    wait_for_steps(folder, 20)
    bad = BadPeer(port, seed)
    assert learner.process is not None
    for _ in range(min(300, wanted)):
        bad.attack()
    before_mib = resident_mib(learner.process.pid)
    most_mib, stored = before_mib, len(EpisodeStore(learner_folder / "episodes"))
    while bad.counts["malformed_sent"] < wanted:
        bad.attack()
        if bad.counts["malformed_sent"] % 100 == 0:
            most_mib = max(most_mib, resident_mib(learner.process.pid))
    # Whatever is not refused would be in the store under the bad peer's name.
    episodes = EpisodeStore(learner_folder / "episodes")
    of_bad = [s for s in episodes.summaries() if s.origin and s.origin.worker.startswith("bad")]
    bad.counts["malformed_accepted"] += len(of_bad)
    served = len(episodes) - stored
    assert learner.process.poll() is None
    finish(learner_folder, learner, [worker])
    log = (root / "learner.log").read_text()
    found = check(learner_folder / "episodes", [folder])
    untyped = sum(n for what, n in bad.counts.items() if what.startswith("untyped"))
    return {
        **bad.counts,
        "malformed_accepted": bad.counts["malformed_accepted"],
        "malformed_untyped": untyped,
        "fuzz_episodes_served": served,
        "fuzz_memory_mib": round(before_mib, 1),
        "fuzz_memory_growth_mib": round(most_mib - before_mib, 1),
        "fuzz_tracebacks": log.count("Traceback"),
        **found,
    }
