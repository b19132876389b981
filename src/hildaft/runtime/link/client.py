"""A worker's end of the link: three threads beside the control loop, which never waits for any of them.

One delivers episodes from the spool, one reports, one keeps a question for newer weights open at the learner. All
try again for ever, at growing intervals, while the learner is away.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import grpc

from hildaft.runtime.channel import Weights
from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link import wire
from hildaft.runtime.link.credentials import ClientTls, require_secure
from hildaft.runtime.link.spool import Spool, SpoolBusyError
from hildaft.types import ActionScale, Episode, HilDaftError

REPORT_S: Final = 0.5
RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 5.0

_FOR_GOOD: Final = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Answers that the same question will get again: the worker stops and says why."""


class LearnerAwayError(Exception):
    """The learner did not answer, or not now; trying again may help."""


class EpisodeRefusedError(Exception):
    """The learner will never take this episode."""


class OutOfStepError(Exception):
    """The learner has restarted, or holds more or less than this worker believes: join again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFacts:
    """What a worker says of itself when it joins."""

    robot: str
    action_scale: ActionScale
    encoder_hash: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What a worker reports of itself while it runs."""

    state: str
    achieved_hz: float
    late_share: float


@final
class LearnerClient:
    """One connection: calls by name, with deadlines, and errors that say what to do. Thread-safe."""

    def __init__(self, address: str, token: str, tls: ClientTls | None) -> None:
        require_secure(address, tls)
        self.address: Final = address
        # Tokens may not travel as call credentials without TLS; as metadata they may, on loopback.
        self._metadata = (("authorization", f"Bearer {token}"),)
        options = (
            *wire.CHANNEL_OPTIONS,
            ("grpc.initial_reconnect_backoff_ms", int(1e3 * RETRY_FIRST_S)),
            ("grpc.min_reconnect_backoff_ms", int(1e3 * RETRY_FIRST_S)),
            ("grpc.max_reconnect_backoff_ms", int(1e3 * RETRY_MOST_S)),
            ("grpc.enable_retries", 0),
            # Connections of one process are not shared: each client stands for itself.
            ("grpc.use_local_subchannel_pool", 1),
        )
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, tls.grpc(), options)
        self._calls: dict[str, Any] = {
            name: self._channel.unary_unary(
                f"/{wire.SERVICE}/{name}",
                request_serializer=kind.SerializeToString,
                response_deserializer=wire.REPLIES[name].FromString,
            )
            for name, kind in wire.REQUESTS.items()
        }

    def call(self, method: str, request: Any) -> Any:  # noqa: ANN401 - one of seven generated classes
        """The learner's reply.

        Raises:
            HilDaftError: refused for good.
            LearnerAwayError: no answer in time, or not now.
            EpisodeRefusedError: this episode will not be taken.
            OutOfStepError: join again.
        """
        return self.result(self.begin(method, request))

    def begin(self, method: str, request: Any) -> "grpc.Future[Any]":  # noqa: ANN401
        """Sends a call whose answer `result` waits for; it may be cancelled meanwhile."""
        return self._calls[method].future(
            request, timeout=wire.DEADLINE_S[method], metadata=self._metadata
        )

    def result(self, call: "grpc.Future[Any]") -> Any:  # noqa: ANN401
        """The reply to a call that was begun, as `call` gives it."""
        try:
            return call.result()
        except grpc.FutureCancelledError as error:
            raise LearnerAwayError("cancelled") from error
        except grpc.RpcError as error:
            code, detail = _code_and_detail(error)
            if code in _FOR_GOOD:
                msg = f"learner {self.address} refuses: {detail}"
                raise HilDaftError(msg) from error
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                raise EpisodeRefusedError(detail) from error
            if code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED):
                raise OutOfStepError(detail) from error
            raise LearnerAwayError(f"{code.name}: {detail}") from error

    def describe(self) -> Any:  # noqa: ANN401 - generated class
        """The run this learner serves, as `call` does."""
        return self.call("Describe", pb.DescribeRequest(schema_version=wire.SCHEMA_VERSION))

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


@final
class WorkerLink:
    """Implements `Channel` over the network, once `join` has joined the run; a context manager around the control loop.

    Args:
        health: asked for at every report, from another thread.
        say: takes lines for people.
    """

    def __init__(
        self,
        client: LearnerClient,
        spool: Spool,
        run: str,
        facts: WorkerFacts,
        *,
        health: Callable[[], Health],
        say: Callable[[str], None],
    ) -> None:
        self._client, self._spool, self._facts = client, spool, facts
        self._health, self._say = health, say
        self._peer = pb.Peer(schema_version=wire.SCHEMA_VERSION, run=run, worker=spool.worker)
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._question: grpc.Future[Any] | None = None
        self._failure: HilDaftError | None = None
        self._away_said = False
        self._trouble = ""
        self._joining = threading.Lock()
        self._weights: Weights | None = None
        self._confirmed_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, args=(work, wake), name=name, daemon=True)
            for name, work, wake in (
                ("deliver", self._deliver, self._wake),
                ("report", self._report, self._stopping),
                ("follow", self._follow, self._stopping),
            )
        ]

    def __enter__(self) -> "WorkerLink":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._wake.set()
        if self._question is not None:
            self._question.cancel()
        for thread in self._threads:
            thread.join(timeout=5.0)

    @property
    def weights(self) -> Weights | None:
        """The newest weights received; None before the first."""
        return self._weights

    @property
    def weight_age_s(self) -> float:
        """Time since the learner last said that these are its newest weights."""
        return time.monotonic() - self._confirmed_s

    def check(self) -> None:
        """Raises HilDaftError if the learner has refused this worker for good meanwhile."""
        if self._failure is not None:
            raise self._failure

    @property
    def journal(self) -> Spool:
        """The spool keeps each step at once."""
        return self._spool

    def put(self, episode: Episode) -> None:
        """Makes the episode durable here; the delivering thread takes it from there."""
        self._spool.commit(episode)
        self._wake.set()

    def next(self) -> Any | None:  # noqa: ANN401 - generated class
        """What to do next; None while the learner is away."""
        self.check()
        if self._away_said:
            # Known without asking: a call into nothing would cost the robot its deadline.
            return None
        try:
            return self._client.call("Next", pb.NextRequest(peer=self._peer))
        except OutOfStepError:
            self._rejoin()
        except (LearnerAwayError, EpisodeRefusedError):
            pass
        return None

    def drain(self, deadline_s: float) -> bool:
        """Waits until the spool is empty; False where that takes longer."""
        end = time.monotonic() + deadline_s
        while self._spool.pending() and time.monotonic() < end and self._failure is None:
            self._wake.set()
            time.sleep(0.05)
        return not self._spool.pending()

    def join(self) -> bool:
        """Joins the run; before entering, and again whenever the learner has restarted. Always True.

        Raises:
            HilDaftError: the learner refuses this worker.
            LearnerAwayError: it does not answer.
        """
        facts = self._facts
        with self._joining:
            reply = self._client.call(
                "Join",
                pb.JoinRequest(
                    peer=self._peer,
                    robot=facts.robot,
                    translation_m=facts.action_scale.translation_m,
                    rotation_rad=facts.action_scale.rotation_rad,
                    encoder_hash=facts.encoder_hash,
                    tasks=facts.tasks,
                ),
            )
            if reply.durable_sequence < self._spool.acknowledged:
                self._say(
                    f"the learner holds this worker's episodes up to {reply.durable_sequence}, but had confirmed "
                    f"{self._spool.acknowledged}: its episode folder has lost some; new ones go on"
                )
            self._durable = int(reply.durable_sequence)
            self._spool.start_after(self._durable)
            return True

    def _rejoin(self) -> None:
        try:
            self.join()
        except (LearnerAwayError, OutOfStepError):
            pass
        except (HilDaftError, EpisodeRefusedError) as error:
            self._failure = HilDaftError(str(error))

    def _run(self, work: Callable[[], bool], wake: threading.Event) -> None:
        """Repeats `work` (True: at once, False: after a pause, which `wake` ends), with backoff while away."""
        wait_s = RETRY_FIRST_S
        while not self._stopping.is_set() and self._failure is None:
            try:
                if wake is self._wake:
                    wake.clear()
                again = self._attempt(work)
                if again is None:
                    # Scattered, so that many workers do not come back in one instant.
                    self._stopping.wait(wait_s * random.uniform(0.5, 1.0))
                    wait_s = min(2 * wait_s, RETRY_MOST_S)
                else:
                    wait_s = RETRY_FIRST_S
                    if not again:
                        wake.wait(REPORT_S)
            except HilDaftError as error:  # noqa: PERF203 - trying again is the point
                self._failure = error
            except Exception as error:
                # A thread that ended in silence would deliver nothing more, and nobody would know.
                what = f"{type(error).__name__}: {error}"
                msg = f"link to learner {self._client.address}: {what}; start again (episodes are kept) and report it"
                self._failure = HilDaftError(msg)
                self._failure.__cause__ = error

    def _attempt(self, work: Callable[[], bool]) -> bool | None:
        """What `work` says; None where it is to be tried again after a while."""
        try:
            return work()
        except OutOfStepError:
            self._rejoin()
        except SpoolBusyError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._say(f"{error}; trying again")
        except (LearnerAwayError, EpisodeRefusedError) as error:
            self._note_away(str(error))
        return None

    def _note_away(self, reason: str | None) -> None:
        if self._stopping.is_set():
            return
        if reason is not None and not self._away_said:
            self._say(
                f"learner {self._client.address} is away ({reason}); episodes are kept, trying again"
            )
        elif reason is None and self._away_said:
            self._say(f"learner {self._client.address} is back")
        self._away_said = reason is not None

    def _deliver(self) -> bool:
        """Delivers the oldest episode that waits; False if there is none."""
        pending = self._spool.pending()
        if not pending:
            return False
        sequence = pending[0]
        payload = self._spool.read(sequence)
        if payload is None:
            return True
        request = pb.InsertRequest(
            peer=self._peer, sequence=sequence, previous=self._durable, episode=payload
        )
        size, most = request.ByteSize(), wire.MAX_MESSAGE_BYTES
        if size > most:
            # gRPC would not send it, and its answer is the one of a busy learner.
            reason = f"{size} bytes, {most} are allowed; record fewer steps or smaller images"
            self._spool.refuse(sequence, reason)
            return True
        try:
            reply = self._ask("Insert", request)
        except EpisodeRefusedError as error:
            self._spool.refuse(sequence, str(error))
            return True
        self._durable = max(self._durable, int(reply.durable_sequence))
        self._spool.acknowledge(self._durable)
        return True

    def _report(self) -> bool:
        health, held = self._health(), self._weights
        request = pb.ReportRequest(
            peer=self._peer,
            state=health.state,
            weights=held.name if held else "",
            weight_age_s=self.weight_age_s,
            pending_episodes=len(self._spool.pending()),
            pending_bytes=max(0, self._spool.bytes_used),
            achieved_hz=health.achieved_hz,
            late_share=health.late_share,
        )
        newest = self._ask("Report", request).weights
        if held is not None and newest == held.name:
            self._confirmed_s = time.monotonic()
        return False

    def _follow(self) -> bool:
        """Asks for weights newer than those held; False where the learner has none and would not keep the question."""
        held, asked_s = self._weights, time.monotonic()
        request = pb.WeightsRequest(peer=self._peer, held=held.name if held else "")
        self._question = self._client.begin("Weights", request)
        if self._stopping.is_set():
            self._question.cancel()
        reply = self._client.result(self._question)
        self._note_away(None)
        if reply.tensors:
            if hashlib.sha256(reply.tensors).digest() != reply.sha256:
                raise LearnerAwayError("weights arrived damaged")
            self._weights = Weights(reply.weights, int(reply.version), reply.tensors)
        if reply.weights:
            self._confirmed_s = time.monotonic()
        return bool(reply.tensors) or time.monotonic() - asked_s > REPORT_S

    def _ask(self, method: str, request: Any) -> Any:  # noqa: ANN401
        reply = self._client.call(method, request)
        self._note_away(None)
        return reply


def _code_and_detail(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    assert isinstance(error, grpc.Call)
    detail = " ".join((error.details() or "").split())
    return error.code(), detail[: wire.MAX_REASON]
