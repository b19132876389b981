import pytest
from hypothesis import given
from hypothesis import strategies as st
from phrase_set import Phrase, read_phrases, score

from hildaft.teleop.phrase_lexicon import ROLES, SIGNS, Role
from hildaft.teleop.phrases import parse_phrase, suggest_commands
from hildaft.teleop.spelling import REAL_WORDS, mend
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import NULL_COMMAND, RefinementCommand

PHRASES = read_phrases()
HALVES = {
    "tuned": [phrase for phrase in PHRASES if not phrase.is_held_out],
    "held out": [phrase for phrase in PHRASES if phrase.is_held_out],
}
WORDS = {"left": (0, 1, 0), "right": (0, -1, 0), "higher": (0, 0, 1), "lower": (0, 0, -1)}


@pytest.mark.parametrize("half", HALVES)
def test_phrases_of_many_speakers(half: str) -> None:
    phrases = HALVES[half]
    got = score(phrases, parse_phrase)
    assert len(phrases) >= 150
    assert got.opposite == ()
    assert len(got.wrong) <= 0.03 * len(phrases), got.wrong
    assert got.right >= 0.75 * len(phrases)


def test_the_set_is_large_and_has_every_style() -> None:
    assert len(PHRASES) >= 300
    assert len({phrase.text for phrase in PHRASES}) == len(PHRASES)
    assert len({phrase.style for phrase in PHRASES}) >= 9


def test_a_parser_that_ignores_negation_fails_the_set() -> None:
    def naive(text: str) -> RefinementCommand | None:
        named = [SIGNS[word] for word in text.lower().split() if word in SIGNS]
        return RefinementCommand(named[0]) if named else None

    assert score([Phrase(p.text, p.style, p.meaning) for p in PHRASES], naive).opposite


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("frame", "sense"),
    [
        ("{}", 1),
        ("please move it a bit {} thanks", 1),
        ("less {}", -1),
        ("not so far {}", -1),
        ("you went too far {}", -1),
        ("no, {}", 1),
        ("not far {} enough", 1),
        ("stop going {}", 0),
    ],
)
def test_what_takes_a_direction_back_does_so_for_each(word: str, frame: str, sense: int) -> None:
    forward, left, up = WORDS[word]
    got = parse_phrase(frame.format(word))
    assert got == RefinementCommand((sense * forward, sense * left, sense * up))


@pytest.mark.parametrize(
    "frame",
    [
        "don't go {}",
        "never {}",
        "the {} bolt is fine",
        "is it {}?",
        "why {}",
        "not too far {}",
        "no need to go {}",
        "go {} if it is open",
        "{} or not",
        "it moved {}",
        "open the gripper and go {}",
        "the robot's {}",
        "-5 mm {}",
        "0 mm {}",
        "everything but {}",
        "go {} frobnicate",
    ],
)
@pytest.mark.parametrize("word", ["left", "right", "up", "down", "forward", "back"])
def test_what_is_no_order_is_asked_about(word: str, frame: str) -> None:
    assert parse_phrase(frame.format(word)) is None


def test_back_up_is_backwards_unless_it_is_joined_or_lifted() -> None:
    back, up = RefinementCommand((-1, 0, 0)), RefinementCommand((0, 0, 1))
    assert parse_phrase("back up a little") == parse_phrase("back it up") == back
    assert parse_phrase("back and up") == RefinementCommand((-1, 0, 1))
    assert parse_phrase("lift it back up") == up
    assert parse_phrase("go back up") is None


@given(st.permutations(["left", "forward", "up"]), st.sampled_from([" and ", ", ", " "]))
def test_order_does_not_matter(order: list[str], joint: str) -> None:
    assert parse_phrase(joint.join(order)) == RefinementCommand((1, 1, 1))


@given(st.lists(st.sampled_from(sorted(ROLES)), max_size=8).map(" ".join))
def test_any_words_give_a_command_or_a_question(text: str) -> None:
    got = parse_phrase(text)
    named = {SIGNS[word] for word in text.split() if word in SIGNS}
    if got is not None and not got.is_null and not named:
        # Directions come from words: only sayings about the operator, the floor or the height name none.
        assert {
            "me",
            "here",
            "floor",
            "height",
            "altitude",
            "elevation",
            "clearance",
            "drop",
        } & set(text.split())


@given(st.text(max_size=80))
def test_anything_typed_is_survived(text: str) -> None:
    assert parse_phrase(text) is None or isinstance(parse_phrase(text), RefinementCommand)


def test_mending_leaves_real_words_alone() -> None:
    assert [mend(w) for w in ("lfet", "rihgt", "dwon", "foward", "bakc")] == [
        "left",
        "right",
        "down",
        "forward",
        "back",
    ]
    for word in (
        "felt",
        "lift",
        "night",
        "tight",
        "fight",
        "bright",
        "black",
        "shift",
        *REAL_WORDS,
    ):
        assert mend(word) == word
    assert all(mend(word) == word for word in ROLES)


def test_suggestions_are_what_the_text_names_and_its_opposites() -> None:
    assert suggest_commands("the left bolt is fine") == (
        RefinementCommand((0, 1, 0)),
        RefinementCommand((0, -1, 0)),
    )
    assert suggest_commands("coffee") == ()
    assert len(suggest_commands("left up forward")) == 3


def test_commands_reach_the_base_frame_the_operator_set() -> None:
    facing = OperatorFrame(forward="-y", left="+x", up="+z")
    left = parse_phrase("left")
    assert left is not None
    assert facing.to_base(left) == RefinementCommand((1, 0, 0))
    assert facing.words(facing.to_base(left)) == "move left"
    for index in range(27):
        said = RefinementCommand.from_index(index)
        assert facing.to_operator(facing.to_base(said)) == said
    assert facing.to_base(NULL_COMMAND) == NULL_COMMAND


def test_every_direction_word_has_signs_and_only_those() -> None:
    directed = {w for w, r in ROLES.items() if r in (Role.DIRECTION, Role.RAISING, Role.LEVEL)}
    assert directed == set(SIGNS)


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("too close to the table", (0, 0, 1)),
        ("not so close to the desk please", (0, 0, 1)),
        ("not close enough to the bench", (0, 0, -1)),
        ("you're too far from the table", (0, 0, -1)),
        ("a tad closer to the table", (0, 0, -1)),
        ("move a little further away from the table", (0, 0, 1)),
        ("lift it off the table", (0, 0, 1)),
        ("not toward the table, up", (0, 0, 1)),
        ("don't go closer to the table", None),
        ("keep away from the table", None),
        ("put it on the table", None),
        ("is it on the table?", None),
        ("closer to the bolt", None),
        ("hang on a moment", (0, 0, 0)),
        ("hold on a sec, go left", (0, 1, 0)),
        ("no no the other way, right", (0, -1, 0)),
        ("could ya scoot over to the left a smidge", (0, 1, 0)),
    ],
)
def test_the_table_is_below_and_the_other_way_is_a_correction(text, signs):
    command = parse_phrase(text)
    assert (None if command is None else command.signs) == signs
