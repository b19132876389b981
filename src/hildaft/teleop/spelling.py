"""Mistyped words: mended where exactly one word of the vocabulary is a slip of the fingers away.

A slip is two neighbouring letters swapped, a letter doubled, dropped or added, or the key beside the right one. Real
words are left alone, whatever they resemble: "night" is not "right".
"""

import re
from functools import lru_cache
from typing import Final

from hildaft.teleop.phrase_lexicon import MENDED, ROLES, SIGNS, word_set

_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

REAL_WORDS: Final = word_set(
    "aborts advanced advances alt amd amway andy arise arising ascends atop backs bad bait bang "
    "bed bite black bold bot brit bsd but car case ceased ceases climbs closed closet crease "
    "descends detract detracting dink dips don dow downs downy dpi drip dripping drown eave eight "
    "elevated elevates elide fad fare farm fart fat fear fed fight fighter foo freezer freezes "
    "furthers gang goings gold gong goo goring grippe gripped hack hag hal halts han hangs hat "
    "head highs hit hither hod hoists holds hole holed hood host hosting hot huang hugh ink "
    "inking inward inwards joist jot jove judge leas lease leaved leaven leaves lees lefts lefty "
    "les lesa letter lifts lightly limb lit littler loft lofting los loser lowe lowed lowers "
    "lowery lows mich mire mode moe moire moore mores morse mote mover movie mulch munch nigh "
    "nigher nit note nude nudged nudges old oort ore overlay overtly own paused pauses pease "
    "pleased pleases poet ports pot pow power powering quiet quilt quito quits quoit raiding "
    "raised raises raisin refract refracting retracing retracts retreats revere reveres revering "
    "reversed reverses ride riding righted rights rinse rinsing rip ripper ripping risen riser "
    "rises risking rose ruse satay shifts shifty shirt shit shrift sift sin sinkiang sinks sip "
    "sipping slice slider slides slink slinking sop sopping sown stacy stag stat stays stink "
    "stinking stol stomp stoop stooping stops stray strop stropping sty sunk sway tar thea thee "
    "them they tight tighter tko togo tojo took toot top topping toto var waif waist waite waits "
    "wink winking wit withdrawn withdraws yang "
)
"""English words that are one slip away from a word worth mending; found with Debian's word list."""


def _beside() -> dict[str, str]:
    """The keys that touch each key of a QWERTY keyboard."""
    place = {key: (r, c) for r, row in enumerate(_ROWS) for c, key in enumerate(row)}
    # Each row is shifted by about half a key against the one above.
    touches = ((0, -1), (0, 1), (1, -1), (1, 0), (-1, 0), (-1, 1))
    at = {spot: key for key, spot in place.items()}
    return {
        key: "".join(at.get((r + dr, c + dc), "") for dr, dc in touches)
        for key, (r, c) in place.items()
    }


_BESIDE: Final = _beside()


def slips(word: str) -> set[str]:
    """What one slip makes of a word; the first letter stays unless it changes places."""
    heads = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    swapped = {a + b[1] + b[0] + b[2:] for a, b in heads if len(b) > 1}
    dropped = {a + b[1:] for a, b in heads if b and len(word) > 3}
    keys = "abcdefghijklmnopqrstuvwxyz"
    added = {a + key + b for a, b in heads for key in keys if a}
    replaced = {a + key + b[1:] for a, b in heads if b for key in _BESIDE.get(b[0], "")}
    return (swapped | dropped | added | replaced) - {word}


@lru_cache(maxsize=1)
def _mistyped() -> dict[str, str]:
    """Every slip of every word worth mending that can mean one thing only, with the word meant."""
    meant: dict[str, set[str]] = {"upp": {"up"}, "uup": {"up"}, "dn": {"down"}}
    for word in MENDED:
        for slip in slips(word):
            meant.setdefault(slip, set()).add(word)
    for slip, words in meant.items():
        # A slip on the first letter is rare: it counts where nothing else explains the word.
        meant[slip] = {word for word in words if word[0] == slip[0]} or words
    return {
        slip: min(words)
        for slip, words in meant.items()
        if len({SIGNS.get(word, word) for word in words}) == 1
        and slip not in ROLES
        and slip not in REAL_WORDS
    }


def mend(word: str) -> str:
    """The word meant, or the word itself."""
    if word in ROLES:
        return word
    # Drawn out for emphasis: "gooo".
    calm = re.sub(r"(.)\1{2,}", r"\1", word)
    return calm if calm in ROLES else _mistyped().get(word, word)
