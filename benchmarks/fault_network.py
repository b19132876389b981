"""A bad network between workers and a learner: a proxy that cuts, delays, repeats and reorders whole calls."""

import random
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from hildaft.runtime.link import wire

_CAP = (
    ("grpc.max_receive_message_length", 1 << 27),
    ("grpc.max_send_message_length", 1 << 27),
)


class BadNetwork(grpc.GenericRpcHandler):
    """Forwards every call's bytes to the learner, or does worse; a context manager. `counts` says how often what."""

    def __init__(self, learner_port: int, seed: int, *, badness: float) -> None:
        self._rng, self.badness = random.Random(seed), badness
        self._upstream = grpc.insecure_channel(
            f"127.0.0.1:{learner_port}",
            (
                *_CAP,
                ("grpc.max_reconnect_backoff_ms", 300),
                ("grpc.initial_reconnect_backoff_ms", 50),
            ),
        )
        self._old: deque[tuple[str, bytes, Any]] = deque(maxlen=30)
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.cut = threading.Event()
        """While set, nothing gets through."""
        self.slow_s = 0.0
        """Added to every call."""
        self._server = grpc.server(ThreadPoolExecutor(24), options=_CAP)
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> "BadNetwork":
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stop(0.5).wait(2.0)
        self._upstream.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        metadata = tuple(
            (k, v) for k, v in handler_call_details.invocation_metadata if k == "authorization"
        )

        def forward(data: bytes, context: grpc.ServicerContext) -> bytes:
            return self._forward(method, metadata, data, context)

        return grpc.unary_unary_rpc_method_handler(forward)

    def _forward(
        self,
        method: str,
        metadata: tuple[tuple[str, str], ...],
        data: bytes,
        context: grpc.ServicerContext,
    ) -> bytes:
        insert = method.endswith("/Insert")
        with self._lock:
            fate = self._rng.random() / self.badness if self.badness and insert else 1.0
            wait_s = self._rng.uniform(0.0, 0.3)
        if self.cut.is_set():
            self._fail(context, "cut before")
        if self.slow_s:
            time.sleep(self.slow_s)
        if fate < 0.2:
            self._fail(context, "request lost")
        if fate < 0.4:
            self._count("delayed")
            time.sleep(wait_s)
        if 0.4 <= fate < 0.6:
            self._count("delivered twice")
            self._call(method, metadata, data, context)
        if insert and 0.6 <= fate < 0.8 and self._old:
            # Calls of long ago arrive between the new ones, out of order.
            with self._lock:
                late = self._rng.sample(list(self._old), min(3, len(self._old)))
            for old in late:
                self._count("delivered late")
                self._try(*old)
        reply = self._call(method, metadata, data, context)
        if insert:
            with self._lock:
                self._old.append((method, data, metadata))
        if 0.8 <= fate < 1.0 or self.cut.is_set():
            self._fail(context, "reply lost")
        return reply

    def _call(
        self,
        method: str,
        metadata: tuple[tuple[str, str], ...],
        data: bytes,
        context: grpc.ServicerContext,
    ) -> bytes:
        try:
            wait_s = wire.DEADLINE_S[method.rpartition("/")[2]]
            return self._upstream.unary_unary(method)(data, metadata=metadata, timeout=wait_s)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
            raise

    def _try(self, method: str, data: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
        try:
            self._upstream.unary_unary(method)(data, metadata=metadata, timeout=5)
        except grpc.RpcError:
            self._count("late call refused")

    def _fail(self, context: grpc.ServicerContext, what: str) -> None:
        self._count(what)
        context.abort(grpc.StatusCode.UNAVAILABLE, f"bad network: {what}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
