"""Joints of fixtures, as a scene describes them; that of every task is in the contract of tasks."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo.core.errors import TaskError
from tasks.tabletop import parts
from tasks.tabletop.mechanisms import mechanisms

AXIS = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1)
PLACE = st.tuples(*[st.floats(-0.5, 0.5)] * 3)


def scene(axis=(1.0, 0.0, 0.0), pivot=(0.0, 0.0, 0.0), handle=(0.1, 0.0, 0.0), slides=True) -> mujoco.MjSpec:
    """A fixture ``case`` with a body that moves by a joint ``lid``."""
    made = mujoco.MjSpec()
    case = parts.fixture(made, "case")
    case.pos, case.quat = (0.3, -0.2, 0.1), (0.9, 0.1, -0.3, 0.2)
    body = case.add_body(name="body", pos=(0.02, 0.03, 0.05), quat=(0.7, 0.0, 0.7, 0.1))
    parts.box(body, (0.1, 0.1, 0.1))
    if slides:
        parts.slide(body, "lid", axis, (-0.2, 0.3))
    else:
        parts.hinge(body, "lid", axis, (-1.0, 2.0), pos=pivot)
    parts.handle(body, "lid", handle)
    return made


@given(AXIS, PLACE, PLACE, st.booleans(), st.floats(0, 1))
def test_it_moves_as_the_simulator_moves_it(axis, pivot, handle, slides: bool, share: float) -> None:
    made = scene(axis, pivot, handle, slides)
    joint = mechanisms(made, ["lid"])["lid"]
    assert joint.fixture == "case" and joint.slides is slides and np.linalg.norm(joint.axis) == pytest.approx(1)
    assert (joint.low, joint.high) == ((-0.2, 0.3) if slides else (-1.0, 2.0))
    model = made.compile()
    data = mujoco.MjData(model)
    data.qpos[0] = value = joint.low + share * (joint.high - joint.low)
    mujoco.mj_kinematics(model, data)
    case = data.body("case")
    there = (data.site("lid_handle").xpos - case.xpos) @ case.xmat.reshape(3, 3)
    np.testing.assert_allclose(joint.at(value), there, atol=1e-9)
    np.testing.assert_array_equal(joint.at(np.array([[value], [0.0]]))[0, 0], joint.at(value))


def test_what_is_no_mechanism_is_one_clear_error() -> None:
    with pytest.raises(TaskError, match=r"joint door: build must add it .* parts\.handle\(body, 'door', place\)"):
        mechanisms(scene(), ["door"])
    made = scene()
    loose = parts.thing(made, "loose")
    parts.sphere(loose, 0.1)
    parts.handle(loose, "loose", (0, 0, 0))
    with pytest.raises(TaskError, match="joint loose: its body must hang on a fixture"):
        mechanisms(made, ["lid", "loose"])
    made = scene()
    inner = made.body("body").add_body(name="inner")
    parts.sphere(inner, 0.1)
    parts.hinge(inner, "inner", (0, 0, 1), (0, 1))
    parts.handle(inner, "inner", (0, 0, 0))
    with pytest.raises(TaskError, match="joint inner: its body must hang on a fixture"):
        mechanisms(made, ["inner"])
