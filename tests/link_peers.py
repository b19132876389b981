"""Both ends of the link in one process, with episodes small enough to make thousands of."""

import contextlib
import threading

import numpy as np

from hildaft.data.episode_builder import EpisodeBuilder
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.link.client import Health, LearnerClient, WorkerFacts, WorkerLink
from hildaft.runtime.link.intake import Intake, Terms
from hildaft.runtime.link.roster import Roster
from hildaft.runtime.link.server import LinkServer, Progress, WeightShelf
from hildaft.teleop.talk import label_tweaks
from hildaft.types import ActionScale, Encoded, Observation

TOKEN = "a token of tests only"
TERMS = Terms(
    run="run",
    tasks=("reach", "push"),
    encoder_hash="blobs",
    action_scale=ActionScale(),
    widths=(4, 2, 2),
)
FACTS = WorkerFacts(
    robot="point", action_scale=ActionScale(), encoder_hash="blobs", tasks=("reach", "push")
)


def small_builder(journal=None, *, source="online", task="reach", encoder_hash="blobs"):
    return EpisodeBuilder(
        task=task,
        source=source,
        robot="point",
        seed=1,
        policy_version=3,
        encoder_hash=encoder_hash,
        action_scale=ActionScale(),
        journal=journal,
    )


def observe(builder, value):
    image = np.full((8, 8, 3), value % 256, np.uint8)
    observation = Observation(images={"head": image}, proprio=np.zeros(2, np.float32))
    builder.observe(
        observation,
        Encoded(
            h=np.full(4, value, np.float32),
            features=np.zeros(2, np.float32),
            proprio=np.zeros(2, np.float32),
        ),
    )


def act(builder, *, last=False, success=True, human=False):
    action = np.full(7, 0.25, np.float32)
    builder.act(
        policy_action=-action,
        human_action=action if human else None,
        executed_action=action if human else -action,
        reward=float(last and success),
        terminated=last and success,
        truncated=last and not success,
    )


def small_episode(first=0, steps=3, journal=None, *, success=True, **options):
    builder = small_builder(journal, **options)
    observe(builder, first)
    for step in range(steps):
        act(builder, last=step == steps - 1, success=success, human=step == 1)
        observe(builder, first + step + 1)
    return builder.build(label_tweaks)


@contextlib.contextmanager
def serving(folder, *, address="127.0.0.1:0", tls=None, terms=TERMS, demonstrations=1):
    intake = Intake(EpisodeStore(folder), EpisodeStore(folder.with_name("evaluations")), terms)
    roster = Roster(intake, demonstrations, lambda kind, task, index: index)
    shelf = WeightShelf()
    server = LinkServer(
        address,
        TOKEN,
        tls,
        config="preset: tiny\n",
        intake=intake,
        roster=roster,
        shelf=shelf,
        progress=Progress(),
    )
    with server:
        yield server


@contextlib.contextmanager
def linked(server, spool, *, facts=FACTS, said=None):
    client = LearnerClient(f"127.0.0.1:{server.port}", TOKEN, None)
    said = [] if said is None else said
    link = WorkerLink(
        client,
        spool,
        "run",
        facts,
        health=lambda: Health(state="acting", achieved_hz=10.0, late_share=0.0),
        say=said.append,
    )
    link.join()
    with link:
        yield link
    client.close()


def wait_until(condition, deadline_s=60.0):
    done = threading.Event()
    for _ in range(int(deadline_s / 0.02)):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("the condition did not come true in time")
