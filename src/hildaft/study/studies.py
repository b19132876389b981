"""The studies by name: which runs each consists of, and what is measured on them afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hildaft.eval.local_bench import EVALUATION_SEED_OFFSET
from hildaft.study.grid import FULL, QUICK, Amounts, Measurement, Member, require_keys, train_words
from hildaft.types import HilDaftError

METHODS: Final[dict[str, tuple[str, ...]]] = {
    "hildaft": ("hildaft",),
    "single-actor": ("single-actor",),
    "hg-dagger": ("hg-dagger",),
    "hil-conrft": ("hil-conrft",),
    "dsrl": ("dsrl",),
    "bc": ("bc",),
    "paper": ("paper",),
    "dsrl-offline": ("dsrl", "--dsrl.critic=offline"),
    "dsrl-sac": ("dsrl", "--dsrl.variant=sac"),
    "dsrl-direct": ("dsrl", "--dsrl.variant=direct"),
}
"""Label to preset and changes."""
TABLE1: Final = "table1"
VARIANTS: Final = ("dsrl-offline", "dsrl-sac", "dsrl-direct")
"""Methods of Table I that are run last: where time is short, the others have all their seeds."""
NOT_QUICK: Final = (*VARIANTS, "paper")
"""Methods that the quick form leaves out: `paper` is told from plain cloning only after more than 3,000 transitions."""
LISTENING: Final = ("hildaft", "paper")
"""Methods that are evaluated once more with an operator who talks, as the paper's were (Sec. V-A)."""
SPOKEN: Final = "spoken"
MEASURING: Final = ("long-horizon", "talk-control")
"""Studies that measure finished runs, given ones too."""

ABLATIONS: Final[dict[str, tuple[str, ...]]] = {
    "no-task-weights": ("--method.no-reweight-tasks",),
    "shared-critic": ("--method.shared-critic",),
    "no-calql": ("--method.calql-weight=0",),
    "bc-on-all-rollouts": ("--method.bc-data=all",),
    "bc-on-demos": ("--method.bc-data=demos",),
    "no-x1": ("--method.tied-noise=0",),
    "no-x2": ("--method.counterfactual-weight=0",),
    "no-x3": ("--method.joint-weight=0",),
    "no-x4": ("--method.advantage-temperature=0",),
    "h-alone": ("--method.primary.no-reads-features",),
    "talk-in-training": ("--method.talk-in-rollouts",),
    "k-1": ("--method.primary.noise-scale=1",),
    "k-5": ("--method.primary.noise-scale=5",),
    "utd-0.5": ("--training.update-to-data=0.5",),
    "utd-2": ("--training.update-to-data=2",),
    "ensemble-1": ("--method.critic.members=1",),
    "ensemble-5": ("--method.critic.members=5",),
    "interventions-0": ("--operator.max-share=0",),
    "interventions-10": ("--operator.max-share=0.1",),
    "interventions-20": ("--operator.max-share=0.2",),
    "demonstrations-5": ("--training.demonstrations=5",),
    "demonstrations-10": ("--training.demonstrations=10",),
    "demonstrations-40": ("--training.demonstrations=40",),
}
"""Label to what is changed of preset hildaft."""
QUICK_ABLATIONS: Final = ("no-task-weights", "shared-critic", "no-calql", "no-x1", "no-x2", "no-x3")

FLEETS: Final[dict[str, tuple[str, ...]]] = {
    "1-robot": ("A",),
    "2-robots": ("A", "B"),
    "2-robots-alike": ("A", "A"),
    "4-robots": ("A", "B", "A", "B"),
}
"""Fig. 7 and beyond: the first is trained on A alone, the second on A and B."""

TALK_MODES: Final = ("right", "random", "opposite")


def _table1(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    if quick:
        return [_method(m, seed, amounts) for seed in seeds for m in METHODS if m not in NOT_QUICK]
    main = [_method(m, seed, amounts) for seed in seeds for m in METHODS if m not in VARIANTS]
    main = [
        replace(m, measurements=(_spoken(m.seed, amounts.episodes),))
        if m.method in LISTENING
        else m
        for m in main
    ]
    return main + [_method(m, seed, amounts) for seed in seeds for m in VARIANTS]


def _spoken(seed: int, episodes: int) -> Measurement:
    """The final evaluation's scenes again, with an operator who says the right thing when the policy errs."""
    scenes = EVALUATION_SEED_OFFSET + seed
    return Measurement(
        name=f"{SPOKEN}-{episodes}",
        words=lambda run: (
            *("eval", str(run), "--talk", "right"),
            *("--episodes", str(episodes), "--seed", str(scenes), "--json"),
        ),
    )


def _method(label: str, seed: int, amounts: Amounts) -> Member:
    preset, *changes = METHODS[label]
    return Member(
        method=label, seed=seed, words=train_words(preset, amounts, *changes), group=TABLE1
    )


def _fig5(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    del quick
    return [_method(m, seed, amounts) for seed in seeds for m in ("hildaft", "single-actor")]


def _table2(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    del quick
    octo = [
        replace(_method("hildaft", seed, amounts), measurements=(_latency("octo-tiny"),))
        for seed in seeds
    ]
    words = train_words("hildaft", amounts, "--backbone=smol-tiny")
    smol = [
        Member(method="smol-tiny", seed=seed, words=words, measurements=(_latency("smol-tiny"),))
        for seed in seeds
    ]
    return octo + smol


def _latency(backbone: str) -> Measurement:
    """Of a backbone and the head behind it; meant for a machine on which nothing else runs (`--jobs 1`)."""
    return Measurement(name="latency", words=lambda _: ("doctor", "--backbone", backbone, "--json"))


def _ablations(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    labels = QUICK_ABLATIONS if quick else tuple(ABLATIONS)
    members = [_method("hildaft", seed, amounts) for seed in seeds]
    for label in labels:
        words = _override(train_words("hildaft", amounts), ABLATIONS[label])
        members += [Member(method=label, seed=seed, words=words) for seed in seeds]
    return members


def _override(words: tuple[str, ...], changes: tuple[str, ...]) -> tuple[str, ...]:
    """A change takes the place of the same option among the amounts."""
    options = {change.partition("=")[0] for change in changes}
    return (*(word for word in words if word.partition("=")[0] not in options), *changes)


def _talk_control(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    """Right, random and opposite words at the end of training, and early on, where the policy still errs."""
    episodes = 20 if quick else 50
    early = replace(amounts, transitions=min(1_500, amounts.transitions))
    members: list[Member] = []
    for seed in seeds:
        final = _method("hildaft", seed, amounts)
        members.append(replace(final, measurements=_talk_measurements(episodes)))
        for method, words in (
            ("early", train_words("hildaft", early)),
            ("early-paper", train_words("paper", early)),
        ):
            members.append(
                Member(
                    method=method,
                    seed=seed,
                    words=words,
                    measurements=_talk_measurements(episodes),
                )
            )
    return members


def _talk_measurements(episodes: int) -> tuple[Measurement, ...]:
    """Each once where the policy errs and once all the way, on the same scenes."""

    def measure(name: str, *told: str) -> Measurement:
        return Measurement(
            name=f"{name}-{episodes}",
            words=lambda run: (
                *("eval", str(run), *told),
                *("--episodes", str(episodes), "--seed", "3000", "--json"),
            ),
        )

    silent = measure("talk-none", "--talk", "none")
    erring = [measure(f"talk-{mode}", "--talk", mode) for mode in TALK_MODES]
    always = [measure(f"told-{mode}", "--talk", mode, "--talk-always") for mode in TALK_MODES]
    return (silent, *always, *erring)


def _long_horizon(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    measurements = chain_measurements(10 if quick else 30)
    return [replace(_method("hildaft", seed, amounts), measurements=measurements) for seed in seeds]


def chain_measurements(chains: int) -> tuple[Measurement, ...]:
    """Chains of four bolts, silent and with the operator talking, on the same scenes."""
    return tuple(
        Measurement(
            name=f"chain-{talk}-{chains}",
            words=lambda run, talk=talk: (
                *("chain", str(run), "--talk", talk, "--chains", str(chains), "--json"),
            ),
        )
        for talk in ("none", "right")
    )


def _multi_robot(seeds: Sequence[int], amounts: Amounts, quick: bool) -> list[Member]:
    labels = list(FLEETS)[: 2 if quick else None]
    # A level is reached early, at a moment worth knowing; two benches take twice the episodes.
    often = replace(amounts, every=amounts.every // 2, episodes=amounts.episodes // 2)
    words = train_words("hildaft", often)
    return [
        Member(method=label, seed=seed, words=words, robots=FLEETS[label])
        for seed in seeds
        for label in labels
    ]


STUDIES: Final[dict[str, Callable[[Sequence[int], Amounts, bool], list[Member]]]] = {
    "table1": _table1,
    "fig5": _fig5,
    "table2": _table2,
    "long-horizon": _long_horizon,
    "multi-robot": _multi_robot,
    "ablations": _ablations,
    "talk-control": _talk_control,
}
"""From seeds, amounts and whether it is the quick form to the runs, in the order they are to be made."""


def plan_study(
    name: str,
    *,
    seeds: Sequence[int],
    quick: bool,
    transitions: int | None,
    runs: Sequence[Path],
) -> list[Member]:
    """The members of a study, all of them.

    Args:
        name: one of STUDIES.
        seeds: of the runs.
        quick: its short form.
        transitions: of the online stage, where another number is wanted; evaluations are as far apart, and one comes
            before the end.
        runs: finished runs to measure in place of runs of its own; long-horizon and talk-control alone take them.

    Raises:
        HilDaftError: a study that takes no runs, or a seed or run given twice.
    """
    amounts = QUICK if quick else FULL
    if transitions is not None:
        every = max(1, min(amounts.every, transitions // 2))
        amounts = replace(amounts, transitions=transitions, every=every)
    members = STUDIES[name](seeds, amounts, quick)
    if runs:
        measurements = members[0].measurements
        if name not in MEASURING:
            msg = f"--run: study {name} trains its own runs; long-horizon and talk-control measure given ones"
            raise HilDaftError(msg)
        if len({run.resolve() for run in runs}) < len(runs):
            msg = f"--run {' '.join(map(str, runs))}: give each run once"
            raise HilDaftError(msg)
        return [
            Member(method="given", seed=0, words=(), measurements=measurements, given=run)
            for run in runs
        ]
    return require_keys(members)


def choose(members: Sequence[Member], only: Sequence[str], seeds: Sequence[int]) -> list[Member]:
    """Those of a study that are to be run.

    Args:
        members: of the study.
        only: methods; all where empty.
        seeds: all where empty.

    Raises:
        HilDaftError: a method that the study does not have.
    """
    known = list(dict.fromkeys(member.method for member in members))
    for method in only:
        if method not in known:
            msg = f"--only {method}: this study has {', '.join(known)}"
            raise HilDaftError(msg)
    return [
        m
        for m in members
        if (not only or m.method in only) and (not seeds or m.seed in seeds or m.given is not None)
    ]
