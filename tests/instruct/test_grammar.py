"""The grammar: what instructions mean in the scenes of the tabletop tasks."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.expert import ExpertConfig, load
from robo.core.errors import InstructionError, ProgramError
from robo.evaluate.worlds import open_world
from tasks.instruct.grammar import GrammarWriter
from tasks.instruct.lexicon import LEXICONS, lexicon
from tasks.instruct.program import LONGEST, Program
from tasks.instruct.writers import open_writer
from tasks.registry import TASKS, load_task
from tasks.tabletop.base import TabletopTask
from tasks.task import Stage
from tests.instruct.parts import PARTS

WRITER = GrammarWriter()
TABLETOP = sorted(name for name in TASKS if isinstance(TASKS.make(name), TabletopTask))
WORDS = {"colour": ("teal", "red"), "books": ("3 books",), "drawer": ("top",), "way": ("left",), "half": ("right",)}
"""What fills the slots of phrases; a program for fewer books is another one."""

FULL = {
    "reach": (
        "Reach the red ball with the gripper.",
        "the gripper should be at the marker",
        "the red ball must be touched",
        "approach the marker and remain there",
        "could you please move your hand to the ball",
    ),
    "push": (
        "shove the puck over to the goal",
        "the puck belongs on the target",
        "slide the puck to the target, do not lift it",
        "push the blue disc so that it lies on the green disc",
        "the blue puck should be pushed onto the target, never pick it up",
    ),
    "pick_and_place": (
        "after picking up the cube, place it on the target",
        "place it on the target after picking up the cube",
        "first grasp the block, then lift it and finally set it down on the green circle",
        "make sure that the red cube is on the green target",
        "cube onto target please",
    ),
    "stack_cubes": (
        "stack the cubes",
        "place the red one on the green one",
        "the red cube should be on top of the green cube",
        "pile the red block onto the green block and let go of it",
        "build a tower from the cubes",
    ),
    "open_drawer": (
        "pull the handle",
        "open the chest's drawer",
        "the drawer of the chest must be opened",
        "grasp the handle, then pull the drawer open and release it",
        "open the drawer by the handle",
    ),
    "peg_insertion": (
        "stick the peg in the hole",
        "plug the yellow peg into the hole of the grey block",
        "the peg should be in the block's hole",
        "lift the peg, then insert it",
        "put the peg into the block",
    ),
    "phone_on_base": (
        "dock the phone",
        "the phone belongs on its charger",
        "lift the phone and put it on the charging station",
        "take the phone off the table and place it in the cradle",
        "the mobile phone should be on the base",
    ),
    "take_umbrella_out_of_stand": (
        "pull out the umbrella",
        "lift the umbrella by its grip",
        "the umbrella should be taken out of the stand",
        "extract the blue umbrella from the umbrella stand and keep hold of it",
        "grab the umbrella before you take it out of the stand",
    ),
    "put_rubbish_in_bin": (
        "bin the rubbish",
        "toss the paper ball into the rubbish bin and don't touch the tomatoes",
        "throw the trash in the bin without touching the tomatoes",
        "leave the tomatoes on the table and throw the paper away",
        "the paper belongs in the basket",
    ),
    "stack_wine": (
        "the wine belongs in the rack",
        "store the wine bottle in the rack's upper slot",
        "grasp the bottle by its neck and insert it into the rack bottom first",
        "the bottle should be pushed into the wine rack",
        "lift the bottle, then slide it in",
    ),
    "take_shoes_out_of_box": (
        "unpack the shoes",
        "take a shoe out of the box, then the other",
        "the shoes should be on the table",
        "after opening the box take both of the shoes out of it",
        "remove the two shoes from the shoebox",
    ),
    "put_shoes_in_box": (
        "pack the shoes",
        "both shoes belong in the box",
        "put a shoe into the box and then the other one",
        "once the box is open, put the shoes into it",
        "place the pair of sneakers inside the carton",
    ),
    "empty_container": (
        "clear the container into the grey tray",
        "put the cube, the cylinder and the cross into the red tray",
        "all objects go into the blue tray",
        "everything should be in the pink tray",
        "empty the contents of the box into the navy tray",
    ),
    "put_books_on_bookshelf": (
        "shelve all the books",
        "three books belong on the shelf",
        "the books should stand on the upper board",
        "put two books on the shelf, then another one",
        "put the red book, the green book and the blue book on the bookcase",
    ),
    "put_item_in_drawer": (
        "the block belongs in the lowest drawer",
        "before putting the block in it, open the middle drawer",
        "open the upper drawer to put the cube in it",
        "put the block in the drawer after opening it",
        "pull the top drawer open by its handle, then pick up the purple block and put it in there",
    ),
    "slide_cabinet_open_and_place_cups": (
        "put the mug into the cabinet",
        "slide the door left, then place the cup in the right half",
        "the cup should be inside the cabinet",
        "push the door aside and put the blue cup behind it",
        "put the cup in the cupboard after opening the sliding door",
    ),
    "assemble_cabinet": (
        "put the top on after inserting the door",
        "the door and the top belong on the body",
        "first slide the door into the front of the cabinet, then cover it with the roof",
        "the cabinet should be assembled",
        "put the door and the top on the cabinet",
    ),
    "assemble_lamp": (
        "screw in the bulb and cover it with the lampshade",
        "put the shade over the bulb, first plug the bulb in",
        "the bulb and the hood belong on the base",
        "plug the light bulb into the base and the hood onto it",
        "build the lamp",
    ),
    "assemble_round_table": (
        "the leg belongs in the top, the cross on the leg",
        "set the base on the leg after putting the leg in the top",
        "assemble the table",
        "attach the leg to the top, then attach the cross to the leg",
        "put the table together: first the leg should be in the tabletop, then the cross base goes onto the leg",
    ),
}
"""Ways to ask for a whole task, five each, none of which stands in its file."""


@cache
def task(name: str) -> TabletopTask:
    found = load_task(name)
    assert isinstance(found, TabletopTask)
    return found


def written(name: str, instruction: str) -> Program:
    """The program of an instruction; it fits its task."""
    program = WRITER.write(task(name), instruction)
    assert program.instruction == instruction
    assert program.complaints(task(name)) == []
    program.apply(task(name)).validate()
    return program


def meaning(program: Program) -> Program:
    return program.model_copy(update={"instruction": "-"})


def refusal(name: str, instruction: str) -> str:
    with pytest.raises(InstructionError) as error:
        WRITER.write(task(name), instruction)
    assert "\n" not in str(error.value)
    return str(error.value)


def said(name: str) -> list[str]:
    """What a task's file says itself, slots filled."""
    texts = [task(name).instruction]
    for phrase in task(name).phrases:
        slots = re.findall(r"\{(\w+)\}", phrase)
        filled = [dict(zip(slots, values, strict=True)) for values in zip(*(WORDS[s] for s in slots), strict=False)]
        texts += [phrase.format(**words) for words in filled] if slots else [phrase]
    return texts


def test_every_task_has_its_words():
    assert sorted(LEXICONS) == TABLETOP == sorted(FULL)
    for name in TABLETOP:
        words = lexicon(task(name))
        own = [stage for deed in words.deeds for stage in deed.stages if not isinstance(stage, Stage)]
        assert own == [stage.name for stage in task(name).stages], "deeds are a chain through the stages"
        for deed in words.deeds:
            assert set(deed.needs) <= {other.text for other in words.deeds}
            nouns = " ".join(f"{say.on} {re.sub(r':[a-z,]+', '', say.to)} {say.off}" for say in deed.says).split()
            assert set(nouns) <= set(words.nouns), deed.text


@pytest.mark.parametrize("name", TABLETOP)
def test_ways_to_ask_for_the_whole_task(name):
    whole = meaning(Program.of(task(name)))
    stored = {text.lower() for text in (task(name).instruction, *task(name).phrases)}
    assert len(set(FULL[name])) >= 5 and not stored & {text.lower() for text in FULL[name]}
    for text in (*said(name), *FULL[name]):
        assert meaning(written(name, text)) == whole, text


@pytest.mark.parametrize("name", TABLETOP)
def test_instructions_of_instances(name):
    rng = np.random.default_rng(0)
    texts = {task(name).instruct(task(name).sample(rng)) for _ in range(12)}
    for text in texts:
        stages = written(name, text).stages
        number = re.search(r"\d", text)
        assert len(stages) == (2 * int(number.group()) if number else len(task(name).stages)), text


@pytest.mark.parametrize(("name", "instruction", "stages", "goal"), PARTS)
def test_part_of_a_task(name, instruction, stages, goal):
    program = written(name, instruction)
    assert [stage.name for stage in program.stages] == stages
    assert program.goal == program.stages[-1].condition == goal
    assert all(stage.distance for stage in program.stages)
    formula = task(name).parsed(program.mission)
    assert formula.horizon(task(name).ctrl_dt_s) <= task(name).mission_formula.horizon(task(name).ctrl_dt_s)
    assert f"G[0,0.5]({goal})" in program.mission
    if name == "push":
        assert "G[0,8](lift_m < 0.01)" in program.mission, "what holds throughout is kept"


@pytest.mark.parametrize(
    ("name", "instruction", "message"),
    [
        ("pick_and_place", "put the cube on the tarmac", "'tarmac' is not understood"),
        ("pick_and_place", "put the cueb on the target", "'cueb' is not understood: did you mean 'cube'?"),
        ("pick_and_place", "paint the cube", "'paint' is not understood"),
        ("pick_and_place", "put the cube quickly on the target", "'quickly' is not understood"),
        ("pick_and_place", "put the blue cube on the target", "there is no blue cube, only red cube"),
        ("pick_and_place", "put the cube under the target", "'under' is not understood"),
        ("pick_and_place", "put two cubes on the target", "there is one of what 'two cubes' names"),
        ("pick_and_place", "put the cube", "does not say where to"),
        ("pick_and_place", "push the cube onto the target", "nothing here can be asked by 'push the cube"),
        ("pick_and_place", "move the target onto the cube", "'the target' is nothing one can move here"),
        ("pick_and_place", "put the cube on the target, then lift it", "cannot come after"),
        ("pick_and_place", "put the cube on the target and pick it up", "cannot come after"),
        ("pick_and_place", "put the cube on the target and hold it", "nothing is held"),
        ("pick_and_place", "grasp the cube and let go", "nothing this task can tell"),
        ("pick_and_place", "put it on the target", "'it' is nothing one can put here"),
        ("pick_and_place", "put the cube on the target without lifting it", ""),
        ("pick_and_place", "the cube", "it lacks a verb"),
        ("pick_and_place", " ...", "the instruction says nothing"),
        ("pick_and_place", "put " * (LONGEST // 4 + 1), "at most 2000 characters"),
        ("push", "push the puck off the target", "does not fit here"),
        ("push", "lift the puck", "nothing here can be asked by 'lift the puck'"),
        ("stack_cubes", "put the green cube on the red cube", "'the green cube' is nothing one can put here"),
        ("stack_cubes", "put the red cube in the green cube", "in 'the green cube' does not fit here"),
        ("open_drawer", "close the drawer", "nothing here can be asked by 'close the drawer'"),
        ("put_rubbish_in_bin", "put everything in the bin", "'everything' is not understood"),
        ("put_rubbish_in_bin", "put the rubbish and the tomatoes in the bin", "'the tomatoes' is nothing one can put"),
        ("put_rubbish_in_bin", "do not touch the tomatoes", "asks for nothing to be done"),
        ("take_shoes_out_of_box", "put the shoes in the box", ""),
        ("put_shoes_in_box", "pick up the shoes", "there is one gripper"),
        ("put_shoes_in_box", "put three shoes in the box", "there are 2"),
        ("put_shoes_in_box", "put the other shoe in the box", "none was spoken of before"),
        ("put_shoes_in_box", "grasp a shoe, then open the box", "cannot come after"),
        ("put_shoes_in_box", "put the shoes on the box", "on 'the box' does not fit here"),
        ("empty_container", "put the cube into the red tray", "say how many, not which"),
        ("empty_container", "take everything out of the container", "needs to say where that goes"),
        ("empty_container", "put a thing in the red tray and another in the blue tray", "do not go together"),
        ("put_books_on_bookshelf", "put some books on the shelf", "'some' is not understood"),
        ("put_books_on_bookshelf", "put the red book on the shelf", "say how many, not which"),
        ("put_books_on_bookshelf", "shelve the books all", "one can shelve here"),
        ("put_books_on_bookshelf", "put a book on the other shelf", "there is one of what 'the other shelf' names"),
        ("empty_container", "put the things into the other tray", "the task is about one tray"),
        ("empty_container", "put the cube and a thing into the tray", ""),
        ("slide_cabinet_open_and_place_cups", "inside put the cup", "'inside' is not understood"),
        ("put_item_in_drawer", "open all the drawers", "the task is about one drawer"),
        ("put_item_in_drawer", "put the block on the chest", "does not say where to"),
        ("put_item_in_drawer", "open the top drawer and put the block into the bottom drawer", "do not go together"),
        ("slide_cabinet_open_and_place_cups", "slide the door left and put the cup in the left half", "go together"),
        ("assemble_lamp", "plug the bulb in after putting the hood on", "cannot come after"),
        ("assemble_cabinet", "pick up the door and put the top on", "the gripper is not free"),
    ],
)
def test_refusals_say_what_is_wrong_and_what_there_is(name, instruction, message):
    text = refusal(name, instruction)
    assert message in text
    if len(instruction) <= LONGEST:
        first = next(iter(lexicon(task(name)).deeds)).text
        assert f"{name} has: " in text and f"one can: {first}" in text


def test_tasks_without_words_say_so():
    class Mine(type(task("reach"))):
        name = "mine"

    with pytest.raises(InstructionError, match=r"no words for task mine, only for reach, push.*--writer llm"):
        WRITER.write(Mine(), "reach the ball")


def test_a_check_that_complains_is_heard():
    complaint = "stage 'grip' pays for standing still"
    writer = open_writer("grammar", check=lambda program: [complaint] if len(program.stages) < 3 else [])
    assert len(writer.write(task("put_item_in_drawer"), "put the block into the top drawer").stages) == 4
    with pytest.raises(ProgramError) as error:
        writer.write(task("put_item_in_drawer"), "open the top drawer")
    assert error.value.complaints == (complaint,)


def test_another_robot_changes_nothing():
    here, there = task("pick_and_place"), task("pick_and_place@ur5e")
    text = "pick up the red cube"
    assert meaning(WRITER.write(here, text)) == meaning(WRITER.write(there, text))


@pytest.mark.parametrize(
    ("name", "instructions"),
    [
        ("pick_and_place", ("grasp the cube", "lift the cube", "hold the cube over the target")),
        ("slide_cabinet_open_and_place_cups", ("grasp the handle", "open the door", "open the door and take the cup")),
        ("empty_container", ("grasp a thing", "put one thing into the tray", "put two things into the tray")),
    ],
)
def test_the_expert_does_every_part_in_time(name, instructions):
    whole = task(name)
    world = open_world(whole)
    signals = world.roll_out(load(whole, ExpertConfig(), {}, "cpu"), 0).signals
    world.close()
    for text in instructions:
        part = written(name, text).apply(whole)
        assert part.stages_reached(signals) == len(part.stages), text
        assert part.mission_formula.verdict(signals, whole.ctrl_dt_s)[0], text


# ---- properties ------------------------------------------------------------------------

ALL = [(name, text) for name in TABLETOP for text in (*said(name), *FULL[name])]
BEFORE = ("please ", "could you ", "Hey, ", "I want you to ", "would you kindly ", "now ")
AFTER = (".", "!", " please", ", thank you", " now.", "")
SAME = {
    "pick_and_place": (("cube", "block", "brick"), ("target", "circle", "spot"), ("put", "place", "set", "move")),
    "put_item_in_drawer": (("drawer",), ("block", "cube", "item"), ("chest", "dresser"), ("top", "upper", "highest")),
    "put_rubbish_in_bin": (("rubbish", "trash", "garbage", "litter"), ("bin", "basket"), ("put", "drop", "throw")),
    "assemble_lamp": (("hood", "shade", "lampshade"), ("bulb", "light bulb"), ("plug", "insert", "screw", "fit")),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_courtesy_case_and_punctuation_change_nothing(case, data):
    name, text = case
    changed = "".join(data.draw(st.sampled_from((c.lower(), c.upper()))) for c in text)
    changed = re.sub(" ", lambda _: data.draw(st.sampled_from((" ", "  ", "\n", "\t"))), changed)
    before = data.draw(st.sampled_from(("", *BEFORE))) if not text.lower().startswith(("could", "make")) else ""
    after = data.draw(st.sampled_from(AFTER)) if not text.endswith((".", "please")) else ""
    assert meaning(WRITER.write(task(name), before + changed + after)) == meaning(WRITER.write(task(name), text))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_articles_change_nothing(case, data):
    name, text = case
    changed = re.sub(
        r"\bthe (?!other|rest|air|way|left|right)", lambda _: data.draw(st.sampled_from(("the ", "your ", ""))), text
    )
    assert meaning(WRITER.write(task(name), changed)) == meaning(WRITER.write(task(name), text))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAME)), st.data())
def test_synonyms_change_nothing(name, data):
    texts = [text.format(drawer="top") for text in FULL[name] + task(name).phrases if not text.startswith("bin")]
    text = data.draw(st.sampled_from(texts))
    for words in SAME[name]:
        for word in words[:1]:
            text = re.sub(rf"(?<!light )\b{word}\b", lambda _, w=words: data.draw(st.sampled_from(w)), text)
    assert meaning(WRITER.write(task(name), text)) == meaning(Program.of(task(name)))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(ALL), st.from_regex(r"[b-df-hj-np-tv-xz]{5,9}", fullmatch=True), st.data())
def test_no_word_is_passed_over(case, rubbish, data):
    name, text = case
    words = text.split()
    words.insert(data.draw(st.integers(0, len(words))), rubbish)
    assert "is not understood" in refusal(name, " ".join(words))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TABLETOP), st.text(max_size=60))
def test_rubbish_raises(name, text):
    try:
        program = WRITER.write(task(name), text)
    except InstructionError as error:
        assert "\n" not in str(error)
    else:
        assert program.complaints(task(name)) == []


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(TABLETOP), st.data())
def test_any_order_of_known_words_is_a_program_that_fits_or_an_error(name, data):
    words = sorted({word for text in (*said(name), *FULL[name]) for word in text.split()})
    text = " ".join(data.draw(st.lists(st.sampled_from(words), max_size=9)))
    try:
        program = WRITER.write(task(name), text)
    except InstructionError as error:
        assert "\n" not in str(error)
    else:
        assert program.complaints(task(name)) == []
        program.apply(task(name))
