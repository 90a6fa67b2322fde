"""Instructions that ask for less than a task does."""

from __future__ import annotations

from tasks.registry import load_task

PARTS = [
    ("put_item_in_drawer", "open the top drawer", ["grip", "pull"], "opened_m > 0.1"),
    ("put_item_in_drawer", "open the drawer and pick up the block", ["grip", "pull", "grasp"], "held_n > 0.5"),
    ("put_item_in_drawer", "pick up the block", ["grasp"], "held_n > 0.5"),
    ("pick_and_place", "pick the red cube up", ["grasp", "lift"], "held_n > 0.5 and lift_m > 0.03"),
    ("phone_on_base", "lift the phone", ["grasp", "lift"], "held_n > 0.5 and lift_m > 0.03"),
    ("push", "nudge the puck", ["push"], "moved_m > 0.02"),
    ("open_drawer", "take hold of the handle", ["grip handle"], load_task("open_drawer").stages[0].condition),
    ("put_shoes_in_box", "the box should be open", ["open the lid"], "lid_rad > 1.65"),
    (
        "take_shoes_out_of_box",
        "take one shoe out",
        ["open the lid", "grasp a shoe", "put it on the table"],
        "one_m > 0 and held_n < 0.1",
    ),
    (
        "put_books_on_bookshelf",
        "shelve a book, then another, leave the others in the holder",
        ["grasp first", "shelve first", "grasp second", "shelve second"],
        "second_m > 0 and held_n < 0.1 and left_m > 0",
    ),
    (
        "slide_cabinet_open_and_place_cups",
        "slide the door to the left",
        ["grip", "slide", "release"],
        "opened_m > 0.06 and gripper_width_m > 0.03",
    ),
    (
        "assemble_cabinet",
        "put the top on",
        ["grasp_top", "insert_top"],
        "top_off_m < 0.003 and top_tilt_rad < 0.0873 and held_n < 0.1",
    ),
]
"""Task, instruction, stages and goal of its program."""
