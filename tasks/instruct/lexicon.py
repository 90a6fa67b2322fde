"""The words of the tabletop tasks: what things are called, and which deeds their stages stand for.

A task's deeds are a chain in the order in which one gripper can do them. A deed names the stages it adds, what holds
once it is done (by default the condition of its last stage), the deeds it needs, and the ways to ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robo.core.errors import InstructionError
from tasks.tabletop.base import RELEASED, TabletopTask
from tasks.tabletop.empty_container import COLOURS
from tasks.tabletop.furniture import OFF_M, TILT_RAD
from tasks.tabletop.pick_and_place import TARGET_M
from tasks.tabletop.put_item_in_drawer import OPEN_M
from tasks.tabletop.slide_cabinet_open_and_place_cups import SLIDE_M
from tasks.task import Stage


@dataclass(frozen=True, kw_only=True)
class Noun:
    """What something is called.

    Attributes:
        words: Its names, by ``|``; plurals are formed.
        like: Adjectives that hold of it, by blanks.
        of: What it belongs to: nouns that may stand before it (``cabinet door``) or after it (``door of the cabinet``).
        pick: Adjectives that choose what an instance's variation names, and the value they choose.
        members: How many of it there are.
        group: The noun of those it is one of, which the task's signals do not tell apart.
    """

    words: str
    like: str = ""
    of: str = ""
    pick: Mapping[str, str] = field(default_factory=dict)
    members: int = 1
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Say:
    """A way to ask for a deed. Nouns are separated by blanks.

    Attributes:
        acts: Of `tasks.instruct.grammar.ACTS`; ``not`` stands for whatever is forbidden.
        on: What it is done to.
        to: Where that goes, each perhaps with the prepositions that say it: ``drawer:in``.
        off: Where it comes from.
        tools: What it is done by, with or from.
        how: Adverbs, by ``|``, each perhaps with the value it picks (see `Noun.pick`): ``left=right``.
        bare: The object may be unsaid.
    """

    acts: str
    on: str
    to: str = ""
    off: str = ""
    tools: str = ""
    how: str = ""
    bare: bool = False


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What some stages of a task amount to.

    Attributes:
        text: Names it, in messages and in `needs`.
        says: Ways to ask for it.
        stages: What it adds to those it needs: the task's, by name, or stages of its own, for when it comes last.
        done: State formula that holds once it is done. Empty: the condition of its last stage.
        needs: Deeds that come before it and that it implies.
        holds: Something is grasped at its end.
        count: So many of a group it is done to; 0 where it is no matter of counting.
        keep: Nothing to do, but something to keep: `done` is added to the goal.
    """

    text: str
    says: tuple[Say, ...]
    stages: tuple[str | Stage, ...] = ()
    done: str = ""
    needs: tuple[str, ...] = ()
    holds: bool = False
    count: int = 0
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Nouns by the names of what they mean, and the chain of deeds."""

    nouns: Mapping[str, Noun]
    deeds: tuple[Deed, ...]


COMMON = {
    "gripper": Noun(words="gripper|hand|tool|arm|jaws|robot|robot arm|robot hand|end effector"),
    "table": Noun(words="table|tabletop|desk"),
}
TARGET = Noun(words="target|circle|spot|disc|disk|mark|zone|area|goal", like="green round")


def lexicon(task: TabletopTask) -> Lexicon:
    """The words of a task.

    Raises:
        InstructionError: There are none.
    """
    name = type(task).name
    if name not in LEXICONS:
        raise InstructionError(
            f"the grammar has no words for task {name}, only for {', '.join(LEXICONS)}; a language model can write "
            "for any task: --writer llm"
        )
    found = LEXICONS[name]
    return Lexicon(nouns={**COMMON, **found.nouns}, deeds=found.deeds)


# ---- pieces --------------------------------------------------------------------------


def _grasp(thing: str, stage: str = "grasp", acts: str = "grasp hold", **more: Any) -> Deed:
    """To take hold of a thing; where nothing measures its height, that is to pick it up."""
    return Deed(text=f"grasp the {thing}", says=(Say(acts=acts, on=thing, **more),), stages=(stage,), holds=True)


def _lift(thing: str, stage: str | Stage = "lift", **more: Any) -> Deed:
    says = (Say(acts="lift hold", on=thing, how="in the air", **more),)
    return Deed(text=f"lift the {thing}", says=says, stages=(stage,), needs=(f"grasp the {thing}",), holds=True)


def _raised(height_m: float) -> Stage:
    """Of a task without such a stage: a thing is grasped and so high above the table."""
    distance = f"max({height_m} - lift_m, 0)"
    return Stage(name="lift", condition=f"held_n > 0.5 and lift_m > {height_m}", distance=distance)


def _over(thing: str, place: str, stage: str, done: str) -> Deed:
    says = (Say(acts="carry hold", on=thing, to=place),)
    text, needs = f"carry the {thing} over the {place.split(':')[0].split()[0]}", (f"lift the {thing}",)
    return Deed(text=text, says=says, stages=(stage,), done=done, needs=needs, holds=True)


def _counted(noun: str, grasp: Say, put: tuple[Say, ...], stages: tuple[str, ...], text: str, *needs: str, to: bool):
    """To take and put one, two, ... of a group, a pair of stages each; `to`: taking needs what putting needs, too."""
    deeds: list[Deed] = []
    for i, (first, then) in enumerate(zip(stages[::2], stages[1::2], strict=True)):
        before = (deeds[-1].text,) if deeds else needs
        held = f"grasp {('a', 'another', 'a third')[i]} {noun}"
        if i == 0:
            done, more = "grip_n > 0.5", needs if to else ()
            deeds.append(Deed(text=held, says=(grasp,), stages=(first,), done=done, needs=more, holds=True, count=1))
            before, own = (held, *needs), (then,)
        else:
            own = (first, then)
        plural = f"{i + 1} {noun}s" if i else f"a {noun}"
        deeds.append(Deed(text=text.format(plural), says=put, stages=own, needs=before, count=i + 1))
    return tuple(deeds)


def _assembly(whole: str, *parts: tuple[str, Say]) -> tuple[Deed, ...]:
    deeds: list[Deed] = []
    for part, say in parts:
        deeds.append(_grasp(part, f"grasp_{part}", "grasp lift hold", off="table"))
        done = f"{part}_off_m < {OFF_M} and {part}_tilt_rad < {TILT_RAD:.4f} and {RELEASED}"
        text, needs = f"put the {part} where it belongs", (f"grasp the {part}",)
        deeds.append(Deed(text=text, says=(say,), stages=(f"insert_{part}",), done=done, needs=needs))
    names = " ".join(part for part, _ in parts)
    says = (Say(acts="build", on=whole, tools=f"body base top leg {names}", how="upside down"),)
    needs = tuple(deed.text for deed in deeds if not deed.holds)
    return (*deeds, Deed(text=f"assemble the {whole}", says=says, needs=needs))


# ---- tasks -----------------------------------------------------------------------------

_SHOES = {
    "box": Noun(words="box|shoe box|shoebox|carton", like="wooden"),
    "lid": Noun(words="lid|cover|flap", like="orange", of="box"),
    "handle": Noun(words="handle|bar", of="lid box"),
    "shoe": Noun(words="shoe|sneaker|trainer|boot", like="blue", members=2),
}
_OPEN_LID = Deed(
    text="open the box",
    says=(Say(acts="open", on="lid box", tools="handle gripper"), Say(acts="lift pull", on="lid", tools="handle")),
    stages=("open the lid",),
)
_GRIP_HANDLE = Deed(
    text="grasp the handle",
    says=(Say(acts="grasp hold", on="handle"),),
    stages=("grip",),
    done="handle_m < 0.02 and gripper_width_m < 0.03",
    holds=True,
)
LEXICONS: dict[str, Lexicon] = {
    "reach": Lexicon(
        nouns={"marker": Noun(words="ball|marker|point|sphere|target|spot|dot", like="red marked")},
        deeds=(
            Deed(
                text="bring the gripper to the ball",
                says=(
                    Say(acts="reach stay", on="marker", tools="gripper", how="in the air", bare=True),
                    Say(acts="put reach stay", on="gripper", to="marker", how="in the air", bare=True),
                ),
                stages=("reach",),
            ),
        ),
    ),
    "push": Lexicon(
        nouns={"puck": Noun(words="puck|disc|disk|cylinder", like="blue round"), "target": TARGET},
        deeds=(
            Deed(text="push the puck", says=(Say(acts="push slide", on="puck", tools="gripper"),), stages=("push",)),
            Deed(
                text="push the puck onto the target",
                says=(Say(acts="push slide put", on="puck", to="target", tools="gripper", off="table"),),
                stages=("arrive",),
                needs=("push the puck",),
            ),
            Deed(
                text="not lift the puck",
                says=(Say(acts="not-lift not-grasp", on="puck", off="table", bare=True),),
                done="lift_m < 0.01",
                keep=True,
            ),
        ),
    ),
    "pick_and_place": Lexicon(
        nouns={"cube": Noun(words="cube|block|brick", like="red"), "target": TARGET},
        deeds=(
            _grasp("cube", off="table", tools="gripper"),
            _lift("cube", off="table", tools="gripper"),
            _over("cube", "target", "carry", f"away_m < {TARGET_M} and lift_m > 0.005 and held_n > 0.5"),
            Deed(
                text="put the cube onto the target",
                says=(Say(acts="put", on="cube", to="target", off="table"),),
                stages=("place",),
                needs=("carry the cube over the target",),
            ),
        ),
    ),
    "stack_cubes": Lexicon(
        nouns={
            "red": Noun(words="cube|block|brick", like="red"),
            "green": Noun(words="cube|block|brick", like="green"),
            "tower": Noun(words="tower|stack|pile|cubes|blocks|bricks", members=2),
        },
        deeds=(
            Deed(text="grasp the red cube", says=(Say(acts="grasp hold", on="red"),), stages=("grasp",), holds=True),
            Deed(
                text="lift the red cube",
                says=(Say(acts="lift hold", on="red", off="table", how="in the air"),),
                stages=("lift",),
                needs=("grasp the red cube",),
                holds=True,
            ),
            Deed(
                text="hold the red cube above the green cube",
                says=(Say(acts="carry hold", on="red", to="green"),),
                stages=("align",),
                done="off_m < 0.015 and gap_m > -0.006 and red_held_n > 0.5",
                needs=("lift the red cube",),
                holds=True,
            ),
            Deed(
                text="stack the red cube onto the green cube",
                says=(
                    Say(acts="put stack", on="red", to="green:on", off="table"),
                    Say(acts="build stack", on="tower", to="green:on", tools="red green tower"),
                ),
                stages=("stack",),
                needs=("hold the red cube above the green cube",),
            ),
        ),
    ),
    "open_drawer": Lexicon(
        nouns={
            "drawer": Noun(words="drawer", of="chest"),
            "chest": Noun(words="chest|chest of drawers|cabinet|dresser", like="small wooden"),
            "handle": Noun(words="handle|bar|knob", of="drawer chest"),
        },
        deeds=(
            _grasp("handle", "grip handle"),
            Deed(
                text="open the drawer",
                says=(Say(acts="open pull", on="drawer handle", off="chest", tools="handle gripper"),),
                stages=("pull", "let go"),
                needs=("grasp the handle",),
            ),
        ),
    ),
    "peg_insertion": Lexicon(
        nouns={
            "peg": Noun(words="peg|pin|rod", like="yellow square"),
            "hole": Noun(words="hole|opening|socket|slot", like="square", of="block"),
            "block": Noun(words="block", like="grey gray"),
        },
        deeds=(
            _grasp("peg", off="table"),
            _lift("peg", off="table"),
            _over("peg", "hole block", "align", "off_m < 0.006 and depth_m > -0.05 and held_n > 0.5"),
            Deed(
                text="insert the peg into the hole",
                says=(Say(acts="insert put push", on="peg", to="hole block:in,to", off="table"),),
                stages=("insert",),
                needs=("carry the peg over the hole",),
            ),
        ),
    ),
    "phone_on_base": Lexicon(
        nouns={
            "phone": Noun(words="phone|telephone|smartphone|mobile|mobile phone|cell phone", like="black"),
            "base": Noun(
                words="base|charger|cradle|dock|station|stand", like="white charging docking inclined", of="phone"
            ),
        },
        deeds=(
            _grasp("phone", off="table"),
            _lift("phone", _raised(0.03), off="table"),
            Deed(
                text="put the phone on the base",
                says=(Say(acts="put charge", on="phone", to="base", off="table"),),
                stages=("place",),
                needs=("lift the phone",),
            ),
        ),
    ),
    "take_umbrella_out_of_stand": Lexicon(
        nouns={
            "umbrella": Noun(words="umbrella", like="blue folded"),
            "stand": Noun(words="stand|holder", like="green", of="umbrella"),
            "handle": Noun(words="handle|grip|crook", of="umbrella"),
        },
        deeds=(
            _grasp("umbrella", off="stand", tools="handle gripper"),
            Deed(
                text="take the umbrella out of the stand",
                says=(Say(acts="remove lift pull", on="umbrella", off="stand", tools="handle gripper"),),
                stages=("lift",),
                needs=("grasp the umbrella",),
                holds=True,
            ),
        ),
    ),
    "put_rubbish_in_bin": Lexicon(
        nouns={
            "rubbish": Noun(
                words="rubbish|trash|garbage|litter|waste|paper|paper ball|ball of paper|piece of paper",
                like="crumpled white",
            ),
            "tomato": Noun(words="tomato", like="red", members=2),
            "bin": Noun(words="bin|dustbin|basket|wastebasket|can", of="rubbish"),
        },
        deeds=(
            _grasp("rubbish", acts="grasp lift hold", off="table"),
            Deed(
                text="put the rubbish in the bin",
                says=(Say(acts="put throw", on="rubbish", to="bin:in,to", off="table"),),
                stages=("drop",),
                needs=("grasp the rubbish",),
            ),
            Deed(
                text="leave the tomatoes",
                says=(Say(acts="leave not", on="tomato", to="table", how="where they are|there|alone|beside it"),),
                done="tomatoes_m > 0",
                keep=True,
            ),
        ),
    ),
    "stack_wine": Lexicon(
        nouns={
            "bottle": Noun(words="bottle|wine|bottle of wine|wine bottle"),
            "neck": Noun(words="neck", of="bottle"),
            "rack": Noun(words="rack|wine rack", like="wooden", of="bottle"),
            "slot": Noun(words="slot|compartment", like="upper top free empty", of="rack"),
        },
        deeds=(
            _grasp("bottle", tools="neck gripper", off="table"),
            _lift("bottle", _raised(0.05), tools="neck gripper", off="table"),
            Deed(
                text="put the bottle into the rack",
                says=(
                    Say(
                        acts="put insert push slide store",
                        on="bottle",
                        to="rack:in,to slot:in,to",
                        off="table",
                        tools="neck",
                        how="bottom first",
                    ),
                ),
                stages=("slide in",),
                needs=("lift the bottle",),
            ),
        ),
    ),
    "take_shoes_out_of_box": Lexicon(
        nouns=_SHOES,
        deeds=(
            _OPEN_LID,
            *_counted(
                "shoe",
                Say(acts="grasp lift hold", on="shoe", off="box"),
                (Say(acts="remove unpack put pull lift", on="shoe", to="table", off="box", how="beside it"),),
                ("grasp a shoe", "put it on the table", "grasp the other", "put it there too"),
                "take {} out of the box",
                "open the box",
                to=True,
            ),
        ),
    ),
    "put_shoes_in_box": Lexicon(
        nouns=_SHOES,
        deeds=(
            _OPEN_LID,
            *_counted(
                "shoe",
                Say(acts="grasp lift hold", on="shoe", off="table"),
                (Say(acts="put store", on="shoe", to="box:in,to", off="table"),),
                ("grasp a shoe", "put it into the box", "grasp the other", "put it there too"),
                "put {} into the box",
                "open the box",
                to=False,
            ),
        ),
    ),
    "empty_container": Lexicon(
        nouns={
            "thing": Noun(words="thing|object|item|everything|contents", of="container", members=3),
            "cube": Noun(words="cube|block", like="red", group="thing"),
            "cylinder": Noun(words="cylinder", like="yellow", group="thing"),
            "cross": Noun(words="cross", like="blue", group="thing"),
            "container": Noun(words="container|box|crate", like="big large wooden"),
            "tray": Noun(words="tray", pick={colour: colour for colour in COLOURS}, members=2),
        },
        deeds=_counted(
            "thing",
            Say(acts="grasp lift hold remove", on="thing", off="container"),
            (
                Say(acts="put", on="thing", to="tray", off="container"),
                Say(acts="empty", on="container thing", to="tray", off="container"),
            ),
            ("grasp first", "drop first", "grasp second", "drop second", "grasp third", "drop third"),
            "put {} into the tray",
            to=False,
        ),
    ),
    "put_books_on_bookshelf": Lexicon(
        nouns={
            "book": Noun(words="book", members=3),
            "red book": Noun(words="book", like="red", group="book"),
            "green book": Noun(words="book", like="green", group="book"),
            "blue book": Noun(words="book", like="blue", group="book"),
            "rest": Noun(words="rest|others|other books|remaining books"),
            "holder": Noun(words="holder|stand", of="book"),
            "shelf": Noun(words="shelf|bookshelf|bookcase|top|board", like="upper top", of="shelf book"),
        },
        deeds=(
            *_counted(
                "book",
                Say(acts="grasp lift hold remove", on="book", off="holder table"),
                (Say(acts="put shelve store", on="book", to="shelf", off="holder table"),),
                ("grasp first", "shelve first", "grasp second", "shelve second", "grasp third", "shelve third"),
                "put {} on the shelf",
                "leave the rest",
                to=False,
            ),
            Deed(
                text="leave the rest",
                says=(
                    Say(acts="leave not", on="rest", to="holder table", how="where they are|where it is|there|alone"),
                ),
                done="left_m > 0",
                keep=True,
            ),
        ),
    ),
    "put_item_in_drawer": Lexicon(
        nouns={
            "item": Noun(words="block|cube|item|object|thing", like="purple"),
            "drawer": Noun(
                words="drawer",
                of="chest",
                pick={
                    word: level
                    for level, words in (
                        ("top", "top upper uppermost highest"),
                        ("middle", "middle central centre center"),
                        ("bottom", "bottom lower lowest"),
                    )
                    for word in words.split()
                },
                members=3,
            ),
            "chest": Noun(words="chest|chest of drawers|cabinet|dresser", like="wooden"),
            "handle": Noun(words="handle|bar|knob", of="drawer"),
        },
        deeds=(
            _GRIP_HANDLE,
            Deed(
                text="open the drawer",
                says=(Say(acts="open pull", on="drawer handle", off="chest", tools="handle gripper"),),
                stages=("pull",),
                done=f"opened_m > {OPEN_M}",
                needs=("grasp the handle",),
            ),
            _grasp("item", acts="grasp lift hold", off="table chest"),
            Deed(
                text="put the block into the drawer",
                says=(Say(acts="put insert store", on="item", to="drawer:in,to chest:in,to", off="table chest"),),
                stages=("place",),
                needs=("open the drawer", "grasp the item"),
            ),
        ),
    ),
    "slide_cabinet_open_and_place_cups": Lexicon(
        nouns={
            "cup": Noun(words="cup|mug", like="blue white"),
            "cabinet": Noun(words="cabinet|cupboard"),
            "door": Noun(words="door", like="green sliding", of="cabinet"),
            "half": Noun(words="half|compartment", of="cabinet", pick={"left": "left", "right": "right"}),
            "handle": Noun(words="handle|bar", of="door cabinet"),
        },
        deeds=(
            _GRIP_HANDLE,
            Deed(
                text="slide the door open",
                says=(
                    Say(
                        acts="open slide push pull put",
                        on="door cabinet handle",
                        tools="handle gripper",
                        how="left=right|right=left|aside|out of the way",
                    ),
                ),
                stages=("slide", "release"),
                done=f"opened_m > {SLIDE_M} and gripper_width_m > 0.03",
                needs=("grasp the handle",),
            ),
            _grasp("cup", acts="grasp lift hold", off="table"),
            Deed(
                text="put the cup into the cabinet",
                says=(
                    Say(
                        acts="put store insert push",
                        on="cup",
                        to="cabinet:in,to half door:behind",
                        off="table",
                        how="behind where it was",
                    ),
                ),
                stages=("place",),
                needs=("slide the door open", "grasp the cup"),
            ),
        ),
    ),
    "assemble_cabinet": Lexicon(
        nouns={
            "cabinet": Noun(words="cabinet|cupboard"),
            "door": Noun(words="door", like="white", of="cabinet"),
            "top": Noun(words="top|lid|cover|roof", of="cabinet"),
            "body": Noun(words="body|frame", of="cabinet"),
            "grooves": Noun(words="grooves|groove|front", of="cabinet body"),
        },
        deeds=_assembly(
            "cabinet",
            ("door", Say(acts="put insert attach slide", on="door", to="body cabinet grooves:in,to", how="from above")),
            ("top", Say(acts="put insert attach cover", on="top", to="body cabinet door:on", how="from above")),
        ),
    ),
    "assemble_lamp": Lexicon(
        nouns={
            "lamp": Noun(words="lamp"),
            "bulb": Noun(words="bulb|light bulb", of="lamp"),
            "hood": Noun(words="hood|shade|lampshade", like="orange", of="lamp"),
            "base": Noun(words="base|foot|socket", of="lamp"),
        },
        deeds=_assembly(
            "lamp",
            ("bulb", Say(acts="put insert attach", on="bulb", to="base lamp", how="from above")),
            ("hood", Say(acts="put insert attach cover", on="hood", to="base bulb:on lamp:on", how="from above")),
        ),
    ),
    "assemble_round_table": Lexicon(
        nouns={
            "table": Noun(words="table", like="round"),
            "leg": Noun(words="leg", of="table"),
            "cross": Noun(words="cross|base|foot|cross base|cross foot", of="table"),
            "top": Noun(words="top|tabletop", like="round", of="table"),
        },
        deeds=_assembly(
            "table",
            ("leg", Say(acts="put insert attach", on="leg", to="top table", how="from above")),
            ("cross", Say(acts="put insert attach cover", on="cross", to="leg:on,to table:on", how="from above")),
        ),
    ),
}
"""By the name of the task."""
