"""The words an operator may use, each with the part it plays in a phrase.

The vocabulary is closed: a word that is not in it, and is no near miss of one, makes the parser ask.
Directions are signs (forward, left, up) as the operator sees the robot.
"""

from enum import Enum, auto
from typing import Final, TypeAlias

Signs: TypeAlias = tuple[int, int, int]

FORWARD: Final[Signs] = (1, 0, 0)
BACK: Final[Signs] = (-1, 0, 0)
LEFT: Final[Signs] = (0, 1, 0)
RIGHT: Final[Signs] = (0, -1, 0)
UP: Final[Signs] = (0, 0, 1)
DOWN: Final[Signs] = (0, 0, -1)


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


class Role(Enum):
    """The part a word plays."""

    DIRECTION = auto()
    """Adverb of direction: left, higher, forwards."""
    RAISING = auto()
    """Verb that holds its direction: raise, retreat."""
    LEVEL = auto()
    """Adjective of state: "it is a bit high" complains, "go high" asks for it."""
    HEIGHT = auto()
    """The noun: wants "more" or "reduce" before it."""
    GROW = auto()
    SHRINK = auto()
    MOTION = auto()
    """Verb that needs a direction."""
    REPORT = auto()
    """Verb in the past: counts only in a complaint, "you went too far left"."""
    OVERSHOT = auto()
    STOP = auto()
    HOLD = auto()
    """Stops where nothing else is asked."""
    CONTENT = auto()
    """Praise that means: leave it so."""
    THING = auto()
    """What may be moved."""
    ME = auto()
    MODAL = auto()
    SAYING = auto()
    BE = auto()
    NOT = auto()
    NO = auto()
    LESS = auto()
    TOO = auto()
    SO = auto()
    """so, as, that: they complain after "not"."""
    FAR = auto()
    ENOUGH = auto()
    AMOUNT = auto()
    DETERMINER = auto()
    PLACE = auto()
    """Preposition: what follows says where something is, not where to go."""
    FILLER = auto()
    POLITE = auto()
    I = auto()  # noqa: E741
    YOU = auto()
    CORRECTION = auto()
    WRONG = auto()
    ACT = auto()
    """Turning and gripping: no refinement command can say it."""
    ASKING = auto()
    """First word of a question, with or without its mark."""
    UNDECIDED = auto()
    """Ties the wish to something else, or leaves it open."""
    AWAY = auto()
    NEAR = auto()
    UNTIL = auto()
    UNKNOWN = auto()


_TEXT: Final[dict[Role, str]] = {
    Role.HEIGHT: "height altitude elevation clearance",
    Role.GROW: "increase increasing gain gaining add adding",
    Role.SHRINK: "decrease decreasing reduce reducing lose losing",
    Role.MOTION: "go going move moving shift shifting nudge nudging slide sliding push pushing pull pulling"
    " bring bringing take taking get getting put come coming drive driving steer steering veer bear edge"
    " edging inch inching ease easing scoot scooting scooch shuffle shuffling creep creeping step stepping"
    " travel translate translating jog jogging bump tap heading aim aiming swing carry drag dragging send"
    " make making keep keeping continue proceed try trying correct correcting adjust adjusting fall displace"
    " budge guide glide float give have walk crawl sneak wiggle jiggle jump hop coax"
    " sidestep offset shove pop drift swipe scroll sail strafe tug haul heave yank slip zip"
    " run dart press set"
    " lunge reach extend reposition track lead relocate shimmy wander",
    Role.REPORT: "went gone moved came shifted drifted drifting been got slid pushed moves goes strayed"
    " straying",
    Role.OVERSHOT: "overshot overshoot overshooting overshoots",
    Role.STOP: "stop halt freeze whoa woah abort pause stopping quit cease",
    Role.HOLD: "hold wait stay leave hang",
    Role.CONTENT: "perfect perfectly",
    Role.THING: "arm gripper hand tool effector claw jaws jaw fingers robot tip bolt screw it thing"
    " wrist tcp manipulator motion movement movements change changes",
    Role.MODAL: "need needs should must want wants wanted prefer would could can let lets ought has"
    " supposed like"
    " needed wanna gotta",
    Role.SAYING: "said say meant mean told tell think guess reckon believe",
    Role.BE: "is are am was were be being looks seems feels sits sitting",
    Role.NOT: "not never without avoid",
    Role.NO: "no nope nah",
    Role.LESS: "less",
    Role.TOO: "too overly excessively",
    Role.SO: "so as that",
    Role.FAR: "far much",
    Role.ENOUGH: "enough",
    Role.AMOUNT: "bit little touch tad hair smidge smidgen smidgeon whisker notch fraction slight small"
    " tiny teeny"
    " wee lot lots very quite really further farther few couple some somewhat half quarter big large"
    " long more extra another steps pinch sliver dash inches mm cm millimetre millimetres millimeter"
    " millimeters centimetre centimetres centimeter centimeters m metre metres meter meters mil mils mill"
    " mills amount distance bits touches hairs smidges least good fair decent full ish hard dead sharp lil"
    " gentle quick slow soft short minor breadth way ways even still just only by several about around roughly"
    " maybe perhaps possibly micron microns pixel pixels straight fractionally increment increments",
    Role.DETERMINER: "the a an my this these those each every",
    Role.PLACE: "toward towards on of at in from with your its off for near behind beside under above below before"
    " into onto his"
    " her their inside outside beyond past along across through between upon within out our",
    Role.FILLER: "hm cool easy steady ok okay okey yes yeah yep yup hey hi well um uh er erm hmm oh ah alright"
    " mate buddy dude bro man"
    " pal friend sir guys folks we us to do now then here there again also and instead over direction"
    " directions side command instruction gonna order definitely certainly basically sort kind than together"
    " today once yet both first finally next same been able both anyway all another"
    " start begin possible bloody damn darn",
    Role.POLITE: "please kindly pls plz thanks thank cheers great nice lovely super awesome helpful ta"
    " appreciate"
    " appreciated grateful mind kind",
    Role.I: "i",
    Role.YOU: "you",
    Role.CORRECTION: "sorry oops scratch actually correction whoops",
    Role.WRONG: "wrong",
    Role.ACT: "turn turning turned rotate rotating rotation twist twisting tilt tilting roll rolling yaw yawing"
    " pitch pitching spin spinning clockwise anticlockwise counterclockwise open opening close closing"
    " grip gripping grab grabbing release releasing grasp grasping squeeze pick drop tighten loosen"
    " unscrew insert flip lean pivot bend angle",
    Role.ASKING: "which what where why how who whose did does shall had",
    Role.UNDECIDED: "or either neither nor unless when whenever whether after while if",
    Role.AWAY: "away",
    Role.NEAR: "closer nearer close",
    Role.UNTIL: "until till",
    Role.ME: "me myself",
}

_SIGNS: Final[dict[Role, dict[Signs, str]]] = {
    Role.DIRECTION: {
        LEFT: "left leftward leftwards lefter leftmost port",
        RIGHT: "right rightward rightwards righter rightmost starboard",
        UP: "up upward upwards higher skyward skywards",
        DOWN: "down downward downwards lower",
        FORWARD: "forward forwards ahead onward onwards fwd frontward frontwards",
        BACK: "back backward backwards rearward rearwards bwd",
    },
    Role.RAISING: {
        UP: "raise raising lift lifting elevate elevating rise rising ascend ascending hoist hoisting climb climbing",
        DOWN: "lowering descend descending sink sinking dip dipping",
        FORWARD: "advance advancing",
        BACK: "retreat retreating withdraw withdrawing retract retracting reverse reversing",
    },
    Role.LEVEL: {UP: "high", DOWN: "low"},
}


def _roles() -> dict[str, Role]:
    table: dict[str, Role] = {}
    for role, text in _TEXT.items():
        for word in text.split():
            table.setdefault(word, role)
    for role, by_signs in _SIGNS.items():
        for text in by_signs.values():
            table.update(dict.fromkeys(text.split(), role))
    return table


ROLES: Final = _roles()
"""The part each word plays."""

SIGNS: Final = {
    word: signs
    for by_signs in _SIGNS.values()
    for signs, text in by_signs.items()
    for word in text.split()
}
"""The direction of each word that has one."""

_MENDED_ROLES: Final = (
    Role.DIRECTION,
    Role.RAISING,
    Role.LEVEL,
    Role.STOP,
    Role.HOLD,
    Role.TOO,
    Role.FAR,
)
MENDED: Final = {
    word for word, role in ROLES.items() if len(word) > 2 and role in _MENDED_ROLES
} | word_set(
    "move moving going shift little slightly bit less not further toward towards away please slide"
    " nudge gripper and the more enough closer"
)
"""Words worth mending when mistyped."""

_BELOW: Final = "the (?:floor|ground|table|tabletop|desk|bench|surface)"
"""What the arm works above."""

IDIOMS: Final[tuple[tuple[str, str], ...]] = (
    # Ways of speaking. Whole words; the first that fits a place is used; "_ask" is a word nobody knows.
    (r"ever so", ""),
    (r"(?:emergency|e|full) stop", "stop"),
    (r"(?:keep|carry|go) on(?= \w+ing| to)", "keep"),
    (
        r"(bring|take|move|get|put|lift|raise|lower|push|pull|nudge|slide|ease) (?:her|him|them)",
        r"\1 it",
    ),
    (
        r"(?:toward|towards)(?= (?:the |my )?(?:left|right|front|back)(?: side)?(?: ,| a | bit| please| now|$))",
        "to",
    ),
    (r"hand side|handside", "side"),
    (r"be(?= (?:a|bit|lower|higher|more|less|further))", "go"),
    (r"(left|right) ?hand", r"\1"),
    (r"right (?:now|away|then|there|here)|right so(?! much| far)|all right|alright", "ok"),
    (r"(?:up|down) to (?:me|you|us|him|her|them|speed|date)", "_ask"),
    (r"(?:all|everything|anything|anywhere|nothing) but", "_ask"),
    (r"(?:not |almost |nearly )+(?:quite )?there(?: yet| now)?", "ok"),
    (r"(?:almost|nearly|not quite)(?= ,)", "ok"),
    (r"(?:almost|nearly)(?= (?:far|high|low) enough)", "not"),
    (r"never mind|forget (?:it|that)|scratch that", "scratch"),
    (r"end effector", "effector"),
    (r"your(?= (?:arm|gripper|hand|tool|effector|claw|height|wrist|altitude))", "the"),
    (r"(?:screw|bolt|end)(?:ing|ed)? (?:it |that )?(?:up|down|in|on|over|back|left|right)", "_ask"),
    (
        r"reverse (?:it|that|this|the|your|direction|directions|course|left|right|up|down)(?: \w+)?",
        "_ask",
    ),
    (r"drop (?:down|lower)", "down"),
    (r"(?:why|can|could|would|will) (?:do )?not (?:you|we)|why not|(?:how|what) about", "please"),
    (r"would be (?:better|nice|great|good|best|perfect)", "please"),
    (r"could do with(?: being)?", "needs"),
    (r"as far (\w+ )?as (?:you can|possible)", r"\1"),
    (r"as (high|low) as (?:you can|possible)", r"go \1"),
    (r"(?:or so|or two|or three|or four|or more|or less|give or take)", ""),
    (r"(hold|hang|wait)(?: on)? (?:a|one) (?:sec|second|moment|minute|tick)", r"\1"),
    (r"the other way(?= ,)", "no"),
    (
        r"(?:hold|hang) (?:on|up|fire|still|steady|tight)|(?:keep|stand|stay) (?:still|steady)|stay put",
        "hold",
    ),
    (r"(?:hold|keep|maintain) (?:the |your |this |that |its )?position", "hold"),
    (r"(?:stay|hold|wait|leave it) (?:where|as) \w+ \w+", "hold"),
    (r"(?:slow|speed|calm|settle|quiet) (?:it |things )?(?:up|down)", "_ask"),
    (r"just right|spot on|no change|leave it (?:as|where) it is", "perfect"),
    (r"(?:good|fine|ok) as (?:it|you) (?:is|are)", "perfect"),
    (r"do not change(?: \w+)?", "perfect"),
    (r"(?:that|it|this) is (?:perfect|good|fine|great|it)(?: enough)?", "perfect"),
    (r"(?:you|we|that|this|it) (?:is|are) right(?= ,|$)", "_ask"),
    (
        r"if (?:you|we) (?:could|can|would|may|like)|if possible|if you (?:do not|would not) mind",
        "please",
    ),
    (r"(?:would|do) you mind|would it be possible to|(?:that|it|this) would be", "please"),
    (r"do (?:you|we|i)|to be (?:honest|fair|sure)", "_ask"),
    (r"(?:can|could|would|will|may) (?:you|we)", "please"),
    (r"could (?:it|this) (?:be|go|come)", "please"),
    (r"(?:can|could|may) i have (?:it|that)", "please"),
    (r"go ahead(?= and| ,|$)", "ok"),
    (r"of course|come on|for me|for now|at once|from (?:here|there)|where it is|by the way", "ok"),
    (
        r"(?:bit|touch|lot|hair|little|tad|couple|few|pair|fraction|half|quarter|quarters) of(?: an?)?",
        "bit",
    ),
    (r"(?:to|in|into) (?:the|an?)(?= \w+ direction)", ""),
    (r"(?:rather than|instead of)", "not"),
    (r"than (?:that|this|it is|it|you are|now|before)", ""),
    (r"(?:left|right) side(?! ,|$)", "_ask"),
    # To and from the operator.
    (r"too (?:close|near) to me", "too back"),
    (r"too far (?:away )?from me", "too forward"),
    (r"not (?:so|as|that) (?:close|near) to me", "less back"),
    (r"not (?:close|near) enough to me", "not back enough"),
    (r"(?:up |over |back )*(?:closer |nearer )?(?:toward|towards) me", "backward"),
    (r"(?:up |over |back )*(?:closer|nearer|close|near|back|over) to me", "backward"),
    (r"(come|bring it|bring the \w+) to me", r"\1 backward"),
    (r"come (?:over |back )?here", "backward"),
    (r"(?:further |farther )?(?:away )?from me", "forward"),
    # "back up" is one verb; after a verb that lifts, it is the way back upwards.
    (r"(bring|lift|raise|take|carry|hoist|rise|climb) (it |the \w+ )?back (up|down)", r"\1 \2\3"),
    (r"(?:go|come|get|move|head|going|moving) (?:it )?back (?:up|down|left|right|to)", "_ask"),
    (r"back (?:down|to)", "_ask"),
    (r"(?:put|set|give|take|place) (?:it |the \w+ |that )?back(?= ,|$)", "_ask"),
    (r"back(?:ing)? (?:it |the \w+ )?(?:up|off|away|out)", "go backward"),
    # Where "up" and "down" are no directions, and where they hide.
    (r"(?:keep|give|hold|make|put|line|set|take) (?:it )?up", "_ask"),
    (r"(?:closer |nearer )?(?:to|toward|towards) the (?:ceiling|sky|roof)", "up"),
    (r"(?:keep|stay) (?:away|clear|off)", "_ask"),
    (rf"too (?:close|near) to {_BELOW}", "too down"),
    (
        rf"not (?:so|as|that) (?:close|near) to {_BELOW}|less (?:close|near) to {_BELOW}",
        "less down",
    ),
    (rf"not (?:close|near) enough to {_BELOW}", "not down enough"),
    (rf"too far (?:away )?from {_BELOW}", "too up"),
    (rf"(?:closer |nearer )?(?:to|toward|towards) {_BELOW}", "down"),
    (rf"(?:(?:away|further|farther|clear|up) )+(?:from|of) {_BELOW}|off (?:of )?{_BELOW}", "up"),
)
"""What is read otherwise than word by word, as patterns over mended words and what stands for them."""
