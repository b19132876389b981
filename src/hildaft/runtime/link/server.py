"""The learner's door: takes nothing unauthenticated, too large or malformed further than its first line."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, cast, final

import grpc

from hildaft.runtime.link import link_pb2 as pb
from hildaft.runtime.link import wire
from hildaft.runtime.link.credentials import ServerTls, require_secure
from hildaft.runtime.link.descriptors import raise_file_limit
from hildaft.runtime.link.intake import Intake
from hildaft.runtime.link.roster import Roster
from hildaft.runtime.link.wire import Refusal
from hildaft.types import HilDaftError

_AT_WORK: Final = 16
"""Calls that may hold a message at once, so that memory stays bounded."""
_WAITING: Final = 64
"""Workers whose question for newer weights may stay open; one more is answered at once, and asks again later."""
_THREADS: Final = _AT_WORK + _WAITING
_CONCURRENT: Final = 2 * _THREADS
"""Calls at once; more are answered RESOURCE_EXHAUSTED."""
_CONNECTIONS: Final = 256
"""Connections at once, one per worker; more are closed. They never take more than half of the files that may be open,
so that a peer without a token cannot keep the learner from writing."""
_HANDSHAKE_MS: Final = 5_000
"""A connection over which nobody speaks is closed after this."""


@dataclass(slots=True)
class Progress:
    """How far the learner is, for `hildaft status`."""

    warmup_updates: int = 0
    online_updates: int = 0
    online_transitions: int = 0
    wanted_transitions: int = 0


@final
class WeightShelf:
    """Holds the newest published weights and nothing older; wakes who waits for them. Thread-safe."""

    def __init__(self) -> None:
        # A restarted learner may go back in versions: the boot tells its weights from the earlier ones.
        self._boot, self._changed = secrets.token_hex(4), threading.Condition()
        self._reply = pb.WeightsReply()
        self._questions: dict[str, object] = {}
        self._closed = False

    def publish(self, tensors: bytes, version: int) -> None:
        """Puts these weights (a safetensors file) in the place of the ones before."""
        reply = pb.WeightsReply(
            weights=f"{self._boot}-{version}",
            version=version,
            tensors=tensors,
            sha256=hashlib.sha256(tensors).digest(),
        )
        with self._changed:
            self._reply = reply
            self._changed.notify_all()

    @property
    def name(self) -> str:
        """Name of the newest weights; empty before the first."""
        with self._changed:
            return self._reply.weights

    @property
    def version(self) -> int:
        """Version of the newest weights."""
        with self._changed:
            return int(self._reply.version)

    def newer(self, worker: str, held: str, wait_s: float, asks: Callable[[], bool]) -> Any:  # noqa: ANN401
        """The newest weights, as soon as they are others than `held`.

        Their name alone after `wait_s`, once `asks` says that nobody listens any more (`wake` makes it look), where
        too many wait already, and where the same worker has asked again.
        """
        question, end = object(), time.monotonic() + wait_s
        with self._changed:
            if worker in self._questions or len(self._questions) < _WAITING:
                self._questions[worker] = question
                self._changed.notify_all()
            while self._reply.weights == held and self._questions.get(worker) is question:
                left_s = end - time.monotonic()
                if self._closed or left_s <= 0 or not asks():
                    break
                self._changed.wait(left_s)
            if self._questions.get(worker) is question:
                del self._questions[worker]
            if self._reply.weights != held:
                return self._reply
            return pb.WeightsReply(weights=held, version=self._reply.version)

    def wake(self) -> None:
        """Makes every waiting question look whether it is still asked."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Answers every open question; later ones do not wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@final
class LinkServer:
    """Serves one run; a context manager. `port` is the one it listens on.

    Args:
        address: HOST:PORT; port 0 takes a free one.
        token: what every call has to carry.
        tls: needed unless the host is this machine's loopback; then every peer shows a certificate of our CA,
            and a worker is named as its certificate is.

    Raises:
        HilDaftError: the address cannot be used, or is open to the network without TLS.
    """

    def __init__(
        self,
        address: str,
        token: str,
        tls: ServerTls | None,
        *,
        config: str,
        intake: Intake,
        roster: Roster,
        shelf: WeightShelf,
        progress: Progress,
    ) -> None:
        require_secure(address, tls)
        self._token, self._tls = token.encode(), tls
        self._config, self._intake = config, intake
        self.roster: Final = roster
        self._shelf, self._progress, self._started = shelf, progress, time.monotonic()
        self._at_work = threading.Semaphore(_AT_WORK)
        self.refused = 0
        """Calls refused so far, whatever the reason."""
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="link"),
            options=(
                *wire.CHANNEL_OPTIONS,
                ("grpc.so_reuseport", 0),
                (
                    "grpc.max_allowed_incoming_connections",
                    min(_CONNECTIONS, raise_file_limit() // 2),
                ),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ),
            maximum_concurrent_rpcs=_CONCURRENT,
        )
        self._server.add_generic_rpc_handlers((_Handlers(self._handle, self._admits, self._count),))
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, tls.grpc())
        except RuntimeError as error:
            msg = f"learner address {address}: cannot be listened on; it may be taken, name another with --listen"
            raise HilDaftError(msg) from error
        self.port: Final[int] = port

    def __enter__(self) -> "LinkServer":
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._shelf.close()
        # Calls under way may end: what they bring is on disk or is sent again.
        self._server.stop(grace=2.0).wait(5.0)

    def _admits(self, metadata: Mapping[str, str]) -> bool:
        return hmac.compare_digest(
            metadata.get("authorization", "").encode(), b"Bearer " + self._token
        )

    def _count(self) -> None:
        self.refused += 1

    def _handle(
        self, method: str, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> bytes:
        try:
            # None of the message is read before here, and no peer can keep a call open for ever.
            left_s, most_s = context.time_remaining(), 2 * wire.DEADLINE_S[method]
            if left_s > most_s:
                raise Refusal(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{method}: a deadline is missing; {most_s:.0f} s at most are allowed",
                )
            if not self._at_work.acquire(timeout=max(0.0, left_s)):
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "the learner is busy; ask later")
            try:
                request = wire.parse_request(method, next(messages, b""))
                reply = self._answer(method, request, context)
            finally:
                self._at_work.release()
            if method == "Weights":
                context.add_callback(self._shelf.wake)
                worker, held = request.peer.worker, request.held
                reply = self._shelf.newer(worker, held, wire.WAIT_S, context.is_active)
            return reply.SerializeToString()
        except Refusal as refusal:
            self._count()
            context.abort(refusal.code, refusal.reason)
            raise AssertionError from refusal

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        if method in ("Describe", "Status"):
            wire.require_schema(request.schema_version)
            return self._describe() if method == "Describe" else self._status()
        worker = self._identify(request.peer, context)
        match method:
            case "Join":
                self.roster.join(worker, request)
                return pb.JoinReply(durable_sequence=self._intake.tally(worker).sequence)
            case "Next":
                return self.roster.assign(worker)
            case "Insert":
                self.roster.require_joined(worker)
                durable = self._intake.insert(
                    worker, request.sequence, request.previous, request.episode
                )
                return pb.InsertReply(durable_sequence=durable)
            case "Report":
                self.roster.report(worker, request)
                return pb.ReportReply(weights=self._shelf.name)
            case _:
                self.roster.require_joined(worker)
                return None

    def _identify(self, peer: Any, context: grpc.ServicerContext) -> str:  # noqa: ANN401
        wire.require_schema(peer.schema_version)
        run = self._intake.terms.run
        if peer.run != run:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"run {peer.run[:80]!r}: this learner serves {run!r}",
            )
        name = wire.name_of(peer.worker)
        if self._tls is not None:
            certified = cast(Mapping[str, list[bytes]], context.auth_context())
            shown = [value.decode() for value in certified.get("x509_common_name", [])]
            if name not in shown:
                raise Refusal(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"worker name {name!r}: the certificate is for {', '.join(shown)}; use that name",
                )
        return str(peer.worker)

    def _describe(self) -> Any:  # noqa: ANN401
        return pb.DescribeReply(
            schema_version=wire.SCHEMA_VERSION, run=self._intake.terms.run, config=self._config
        )

    def _status(self) -> Any:  # noqa: ANN401
        progress = self._progress
        return pb.StatusReply(
            run=self._intake.terms.run,
            stage=self.roster.stage,
            demonstrations=sum(self._intake.demonstrations.values()),
            warmup_updates=progress.warmup_updates,
            online_updates=progress.online_updates,
            online_transitions=progress.online_transitions,
            wanted_transitions=progress.wanted_transitions,
            weights=self._shelf.name,
            stored_episodes=self._intake.count,
            refused=self.refused,
            up_s=time.monotonic() - self._started,
            workers=self.roster.statuses(),
            time_s=time.time(),
        )


@final
class _Handlers(grpc.GenericRpcHandler):
    """Looks a call's handler up. The token is checked here, before a byte of the message is read."""

    def __init__(
        self,
        handle: Callable[[str, Iterator[bytes], grpc.ServicerContext], bytes],
        admits: Callable[[Mapping[str, str]], bool],
        count: Callable[[], None],
    ) -> None:
        self._handle, self._admits, self._count = handle, admits, count

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        metadata = {str(k): str(v) for k, v in handler_call_details.invocation_metadata or ()}
        if not self._admits(metadata):
            reason = "token is missing or wrong: give the learner's with --token-file"
            return self._refuse(grpc.StatusCode.UNAUTHENTICATED, reason)
        if service != wire.SERVICE or method not in wire.REQUESTS:
            return self._refuse(
                grpc.StatusCode.UNIMPLEMENTED, f"there is no {service}/{method}"[:120]
            )

        def handle(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            return self._handle(method, messages, context)

        # As a stream of one, whose message is read when it is asked for.
        return grpc.stream_unary_rpc_method_handler(handle)

    def _refuse(self, code: grpc.StatusCode, reason: str) -> Any:  # noqa: ANN401
        self._count()

        def refuse(requests: object, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            del requests
            context.abort(code, reason)

        # A stream's messages are read only when asked for: this one's never are.
        return grpc.stream_stream_rpc_method_handler(refuse)
