"""A six-axis arm with two fingers as URDF, written here; numbers as of a light arm."""

from __future__ import annotations

_LINKS = (
    # name, mass, box (half x, y, z) and its centre
    ("column", 3.0, (0.05, 0.05, 0.06), (0.0, 0.0, 0.0)),
    ("upper_arm", 3.0, (0.035, 0.035, 0.17), (0.0, 0.0, 0.17)),
    ("forearm", 2.0, (0.03, 0.03, 0.15), (0.0, 0.0, 0.15)),
    ("wrist_1", 0.8, (0.03, 0.03, 0.03), (0.0, 0.0, 0.0)),
    ("wrist_2", 0.6, (0.028, 0.028, 0.028), (0.0, 0.0, 0.03)),
    ("wrist_3", 0.5, (0.03, 0.045, 0.02), (0.0, 0.0, 0.06)),
    ("finger_a", 0.05, (0.010, 0.005, 0.025), (0.0, 0.005, 0.025)),
    ("finger_b", 0.05, (0.010, 0.005, 0.025), (0.0, -0.005, 0.025)),
)
_JOINTS = (
    # name, parent, child, origin, axis, lower, upper, effort, velocity
    ("pan", "ground", "column", (0, 0, 0.20), (0, 0, 1), -2.9, 2.9, 90.0, 2.0),
    ("lift", "column", "upper_arm", (0, 0, 0.06), (0, 1, 0), -1.9, 1.9, 90.0, 2.0),
    ("elbow", "upper_arm", "forearm", (0, 0, 0.34), (0, 1, 0), -2.6, 2.6, 60.0, 2.0),
    ("roll", "forearm", "wrist_1", (0, 0, 0.30), (0, 0, 1), -2.9, 2.9, 20.0, 2.5),
    ("bend", "wrist_1", "wrist_2", (0, 0, 0.0), (0, 1, 0), -2.2, 2.2, 20.0, 2.5),
    ("turn", "wrist_2", "wrist_3", (0, 0, 0.06), (0, 0, 1), -2.9, 2.9, 20.0, 2.5),
)
_SLIDES = (
    ("slide_a", "wrist_3", "finger_a", (0, 0, 0.085), (0, 1, 0)),
    ("slide_b", "wrist_3", "finger_b", (0, 0, 0.085), (0, -1, 0)),
)


def urdf(tool: str = "tcp", limits: bool = True, masses: float = 1.0, fingers: bool = True) -> str:
    """The arm; with another name of the tool's link, without joint limits, heavier or lighter, without fingers."""
    parts = ['<robot name="six_axes">', _link("ground", 4.0, (0.06, 0.06, 0.07), (0.0, 0.0, 0.07))]
    for name, mass, half, centre in _LINKS[: 8 if fingers else 6]:
        parts.append(_link(name, mass * masses, half, centre))
    for name, parent, child, origin, axis, *limit in _JOINTS:
        parts.append(_joint(name, "revolute" if limits else "continuous", parent, child, origin, axis, limit))
    for name, parent, child, origin, axis in _SLIDES if fingers else ():
        parts.append(_joint(name, "prismatic", parent, child, origin, axis, (0.0, 0.04, 60.0, 0.2)))
    parts.append(f'<link name="{tool}"/>')
    parts.append(_joint("fixed", "fixed", "wrist_3", tool, (0, 0, 0.125), (0, 0, 1), ()))
    return "\n".join([*parts, "</robot>"])


def _link(name: str, mass: float, half: tuple, centre: tuple) -> str:
    x, y, z = (2 * h for h in half)
    inertia = [mass / 12 * (a * a + b * b) for a, b in ((y, z), (x, z), (x, y))]
    at = " ".join(map(str, centre))
    box = f'<origin xyz="{at}"/><geometry><box size="{x} {y} {z}"/></geometry>'
    return (
        f'<link name="{name}"><inertial><origin xyz="{at}"/><mass value="{mass}"/>'
        f'<inertia ixx="{inertia[0]}" iyy="{inertia[1]}" izz="{inertia[2]}" ixy="0" ixz="0" iyz="0"/></inertial>'
        f'<visual>{box}<material name="grey"><color rgba="0.7 0.7 0.75 1"/></material></visual>'
        f"<collision>{box}</collision></link>"
    )


def _joint(name: str, kind: str, parent: str, child: str, origin: tuple, axis: tuple, limit: tuple | list) -> str:
    ends = ""
    if limit and kind != "continuous":
        ends = '<limit lower="{}" upper="{}" effort="{}" velocity="{}"/>'.format(*limit)
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{" ".join(map(str, origin))}"/><axis xyz="{" ".join(map(str, axis))}"/>{ends}</joint>'
    )
