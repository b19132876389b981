from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("schema_version",)
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    def __init__(self, schema_version: _Optional[int] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("schema_version", "run", "config")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    run: str
    config: str
    def __init__(self, schema_version: _Optional[int] = ..., run: _Optional[str] = ..., config: _Optional[str] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("schema_version", "run", "worker")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    run: str
    worker: str
    def __init__(self, schema_version: _Optional[int] = ..., run: _Optional[str] = ..., worker: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("peer", "robot", "translation_m", "rotation_rad", "encoder_hash", "tasks")
    PEER_FIELD_NUMBER: _ClassVar[int]
    ROBOT_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_M_FIELD_NUMBER: _ClassVar[int]
    ROTATION_RAD_FIELD_NUMBER: _ClassVar[int]
    ENCODER_HASH_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    robot: str
    translation_m: float
    rotation_rad: float
    encoder_hash: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., robot: _Optional[str] = ..., translation_m: _Optional[float] = ..., rotation_rad: _Optional[float] = ..., encoder_hash: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("durable_sequence",)
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    durable_sequence: int
    def __init__(self, durable_sequence: _Optional[int] = ...) -> None: ...

class NextRequest(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("activity", "task", "seed", "weights")
    class Activity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WAIT: _ClassVar[Assignment.Activity]
        DEMONSTRATE: _ClassVar[Assignment.Activity]
        ROLLOUT: _ClassVar[Assignment.Activity]
        FINISHED: _ClassVar[Assignment.Activity]
        EVALUATE: _ClassVar[Assignment.Activity]
    WAIT: Assignment.Activity
    DEMONSTRATE: Assignment.Activity
    ROLLOUT: Assignment.Activity
    FINISHED: Assignment.Activity
    EVALUATE: Assignment.Activity
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    activity: Assignment.Activity
    task: str
    seed: int
    weights: str
    def __init__(self, activity: _Optional[_Union[Assignment.Activity, str]] = ..., task: _Optional[str] = ..., seed: _Optional[int] = ..., weights: _Optional[str] = ...) -> None: ...

class InsertRequest(_message.Message):
    __slots__ = ("peer", "sequence", "previous", "episode")
    PEER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    sequence: int
    previous: int
    episode: bytes
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., sequence: _Optional[int] = ..., previous: _Optional[int] = ..., episode: _Optional[bytes] = ...) -> None: ...

class InsertReply(_message.Message):
    __slots__ = ("durable_sequence",)
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    durable_sequence: int
    def __init__(self, durable_sequence: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("peer", "state", "weights", "weight_age_s", "pending_episodes", "pending_bytes", "achieved_hz", "late_share")
    PEER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    PENDING_EPISODES_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACHIEVED_HZ_FIELD_NUMBER: _ClassVar[int]
    LATE_SHARE_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    state: str
    weights: str
    weight_age_s: float
    pending_episodes: int
    pending_bytes: int
    achieved_hz: float
    late_share: float
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., state: _Optional[str] = ..., weights: _Optional[str] = ..., weight_age_s: _Optional[float] = ..., pending_episodes: _Optional[int] = ..., pending_bytes: _Optional[int] = ..., achieved_hz: _Optional[float] = ..., late_share: _Optional[float] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: str
    def __init__(self, weights: _Optional[str] = ...) -> None: ...

class WeightsRequest(_message.Message):
    __slots__ = ("peer", "held")
    PEER_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    held: str
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., held: _Optional[str] = ...) -> None: ...

class WeightsReply(_message.Message):
    __slots__ = ("weights", "version", "tensors", "sha256")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    weights: str
    version: int
    tensors: bytes
    sha256: bytes
    def __init__(self, weights: _Optional[str] = ..., version: _Optional[int] = ..., tensors: _Optional[bytes] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("schema_version",)
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    def __init__(self, schema_version: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "robot", "state", "tasks", "seen_s", "weights", "weight_age_s", "durable_sequence", "episodes", "transitions", "successes", "gaps", "pending_episodes", "pending_bytes", "achieved_hz", "late_share")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROBOT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SEEN_S_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    PENDING_EPISODES_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACHIEVED_HZ_FIELD_NUMBER: _ClassVar[int]
    LATE_SHARE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    robot: str
    state: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    seen_s: float
    weights: str
    weight_age_s: float
    durable_sequence: int
    episodes: int
    transitions: int
    successes: int
    gaps: int
    pending_episodes: int
    pending_bytes: int
    achieved_hz: float
    late_share: float
    def __init__(self, worker: _Optional[str] = ..., robot: _Optional[str] = ..., state: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ..., seen_s: _Optional[float] = ..., weights: _Optional[str] = ..., weight_age_s: _Optional[float] = ..., durable_sequence: _Optional[int] = ..., episodes: _Optional[int] = ..., transitions: _Optional[int] = ..., successes: _Optional[int] = ..., gaps: _Optional[int] = ..., pending_episodes: _Optional[int] = ..., pending_bytes: _Optional[int] = ..., achieved_hz: _Optional[float] = ..., late_share: _Optional[float] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("run", "stage", "demonstrations", "warmup_updates", "online_updates", "online_transitions", "wanted_transitions", "weights", "stored_episodes", "refused", "up_s", "workers", "time_s")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DEMONSTRATIONS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_UPDATES_FIELD_NUMBER: _ClassVar[int]
    ONLINE_UPDATES_FIELD_NUMBER: _ClassVar[int]
    ONLINE_TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    WANTED_TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    STORED_EPISODES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    UP_S_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    run: str
    stage: str
    demonstrations: int
    warmup_updates: int
    online_updates: int
    online_transitions: int
    wanted_transitions: int
    weights: str
    stored_episodes: int
    refused: int
    up_s: float
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    time_s: float
    def __init__(self, run: _Optional[str] = ..., stage: _Optional[str] = ..., demonstrations: _Optional[int] = ..., warmup_updates: _Optional[int] = ..., online_updates: _Optional[int] = ..., online_transitions: _Optional[int] = ..., wanted_transitions: _Optional[int] = ..., weights: _Optional[str] = ..., stored_episodes: _Optional[int] = ..., refused: _Optional[int] = ..., up_s: _Optional[float] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., time_s: _Optional[float] = ...) -> None: ...
