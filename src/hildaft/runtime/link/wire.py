"""What both ends of the link agree on: schema version, names, sizes, deadlines, and how a refusal is said."""

import re
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from hildaft.runtime.link import link_pb2 as pb
from hildaft.types import HilDaftError

SCHEMA_VERSION: Final = 2
SERVICE: Final = "hildaft.link.v1.Learner"
DEFAULT_PORT: Final = 50_551

MAX_MESSAGE_BYTES: Final = 64 << 20
"""An episode of the bench takes about 2 MB; 500 steps of two larger cameras fit."""
MAX_SMALL_BYTES: Final = 64 << 10
"""Everything but episodes and weights."""
MAX_REASON: Final = 500
"""Characters of a refusal; it travels in a header, which gRPC limits to 8 kB."""

REQUESTS: Final[dict[str, Any]] = {
    "Describe": pb.DescribeRequest,
    "Join": pb.JoinRequest,
    "Next": pb.NextRequest,
    "Insert": pb.InsertRequest,
    "Report": pb.ReportRequest,
    "Weights": pb.WeightsRequest,
    "Status": pb.StatusRequest,
}
REPLIES: Final[dict[str, Any]] = {
    "Describe": pb.DescribeReply,
    "Join": pb.JoinReply,
    "Next": pb.Assignment,
    "Insert": pb.InsertReply,
    "Report": pb.ReportReply,
    "Weights": pb.WeightsReply,
    "Status": pb.StatusReply,
}
WAIT_S: Final = 10.0
"""How long the learner keeps a question for newer weights before it answers that there are none."""
DEADLINE_S: Final = {
    "Describe": 5.0,
    "Join": 5.0,
    "Next": 3.0,
    "Insert": 60.0,
    "Report": 3.0,
    "Weights": 60.0,
    "Status": 5.0,
}
"""How long a worker waits for an answer. A call that might stay open for more than twice that is refused before its
message is read, so that silent peers keep nothing busy."""

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is noticed within 15 s, not after the kernel's two hours.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # The link goes straight to the learner: a proxy of the environment would see the token in clear text.
    ("grpc.enable_http_proxy", 0),
)

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_WORKER: Final = re.compile(r"([A-Za-z0-9_-]{1,40})\.([A-Za-z0-9_-]{1,40})")


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of this program
    """What the learner answers instead of a reply: a status code and one line with the reason."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        # It may quote a peer's own words; longer, or with half a character in them, they would not get through.
        reason = reason.encode("utf-8", "backslashreplace").decode()
        self.code, self.reason = code, reason[:MAX_REASON]


def is_name(name: str) -> bool:
    """Whether this can name a run, a worker or a spool, and be part of a path."""
    return _NAME.fullmatch(name) is not None


def require_worker_name(name: str) -> None:
    """Raises HilDaftError unless this can name a worker."""
    if not is_name(name):
        msg = f"worker name={name[:60]!r}: 1 to 40 letters, digits, - or _ are allowed"
        raise HilDaftError(msg)


def require_run_name(name: str) -> None:
    """Raises HilDaftError unless this can name a run, as a learner says it: it is a folder of the worker's spool."""
    if not is_name(name):
        msg = (
            f"the learner's run={name[:60]!r}: 1 to 40 letters, digits, - or _ are allowed; "
            "mend the file run_name of its run folder"
        )
        raise HilDaftError(msg)


def name_of(worker: str) -> str:
    """The name in NAME.SPOOL.

    Raises:
        Refusal: it is not of that form.
    """
    match = _WORKER.fullmatch(worker)
    if match is None:
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT, f"worker={worker[:90]!r}: NAME.SPOOL is expected"
        )
    return match[1]


def parse_request(method: str, data: bytes) -> Any:  # noqa: ANN401 - one of seven generated classes
    """The message of a method.

    Raises:
        Refusal: it is larger than the method allows, or no such message.
    """
    if method != "Insert" and len(data) > MAX_SMALL_BYTES:
        raise Refusal(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{method}: {len(data)} bytes, {MAX_SMALL_BYTES} are allowed",
        )
    try:
        return REQUESTS[method].FromString(data)
    except DecodeError as error:
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT, f"{method}: the message cannot be decoded"
        ) from error


def require_schema(version: int) -> None:
    """Raises Refusal unless the peer speaks this schema."""
    if version != SCHEMA_VERSION:
        raise Refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"schema version {version}, this learner speaks {SCHEMA_VERSION}: install the same HiL-DAFT on both",
        )
