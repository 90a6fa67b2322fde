"""A rollout as a rerun recording: scene, plans, pictures, robustness, who was in control."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from robo.core.errors import RoboError, RunError, TaskError
from robo.core.files import make_parent, write_bytes
from robo.data.rollout import CONTROLLERS, ArmRollout, Rollout, SystemRollout
from robo.view.charts import predicates_by_unit
from robo.view.playback import Playback, open_playback
from robo.view.style import CONTROLLER_RGB, INK_RGB, PATH_RGB, PLAN_RGB, RHO_RGB, SERIES_RGB
from robo.view.views import open_view
from sim.coarse import MOST_GROUP
from sim.render import Renderer
from sim.scene import geom_rgba
from tasks.arm import SceneTask
from tasks.system import SystemTask
from tasks.task import Task

TIMELINE = "time"
APPLICATION = "robo"
IMAGE_SIZE = (320, 240)
"""Width and height of camera pictures in a recording [px]."""
SYSTEM_SIZE = (720, 540)
"""Width and height of the pictures of a system [px]."""
JPEG_QUALITY = 85
SHADOW_SIZE = 512
"""Shadow map of camera pictures [texels]; small as they are, they need no finer one, nor smooth edges."""
PLANE_HALF_M, FLOOR_RGB = 1.0, (228, 232, 236)
"""How much of a plane is shown, from its middle to its sides [m], and in what colour."""
EYE_POSITION, EYE_TARGET = (1.3, -1.05, 1.0), (0.2, 0.0, 0.36)
"""Where the 3D view looks from, and at what [m]."""


def record(task: Task, rollout: Rollout, path: Path, *, pictures: bool = True) -> Path:
    """Write a rollout as ``.rrd``, with the layout of its viewer.

    Args:
        task: The task of the rollout.
        rollout: What is recorded.
        path: The file, written atomically.
        pictures: Whether camera pictures go in (they need a renderer).

    Raises:
        RoboError: The rollout does not fit the task, a picture cannot be rendered, or there is no room on the disk.
    """
    path = Path(path)
    if path.suffix != ".rrd":
        raise RunError(f"a rerun recording ends in .rrd, not {path.name!r}; try --save {path.stem}.rrd")
    make_parent(path)
    stream = rr.RecordingStream(APPLICATION, recording_id=f"{rollout.task}-{rollout.policy}-{rollout.seed}")
    # Into memory first: rerun's own file sink only logs when a disk is full. Strict: our mistakes are errors.
    file, strict = stream.binary_stream(), rr.strict_mode()
    rr.set_strict_mode(True)
    try:
        log(task, rollout, stream, pictures)
        content = file.read(flush=True)
    finally:
        rr.set_strict_mode(strict)
    if content is None:
        raise RoboError("rerun recorded nothing; install it again: pip install -U rerun-sdk")
    write_bytes(path, content)
    return path


@singledispatch
def log(task: Task, rollout: Any, stream: rr.RecordingStream, pictures: bool) -> None:
    """Log a rollout and the layout of its viewer; the class of the task decides how.

    Raises:
        TaskError: No recording for this kind of task.
    """
    raise TaskError(f"no recordings of task {task.name}, a {type(task).__name__}")


@log.register
def _log_scene(task: SceneTask, rollout: ArmRollout, stream: rr.RecordingStream, pictures: bool) -> None:
    playback = open_playback(task, rollout)
    stream.send_blueprint(blueprint(task, rollout, pictures=pictures))
    _log(stream, playback, pictures)


@log.register
def _log_system(task: SystemTask, rollout: SystemRollout, stream: rr.RecordingStream, pictures: bool) -> None:
    with open_view(task, rollout, SYSTEM_SIZE) as view:
        scene = rrb.Spatial2DView(origin="/scene", name=task.instruction)
        control = rrb.StateTimelineView(origin="/control", name="who was in control")
        rows = [
            *_spec_views(task, rollout),
            rrb.Tabs(
                rrb.TimeSeriesView(origin="/control_input", name="controls"),
                rrb.TimeSeriesView(origin="/state", name="state"),
                rrb.TimeSeriesView(origin="/plan_ms", name="planning time [ms]"),
                rrb.TextDocumentView(origin="/about", name="about"),
                active_tab=0,
            ),
        ]
        stream.send_blueprint(_layout(rrb.Vertical(scene, control, row_shares=[5, 1]), rows))
        for k, time_s in enumerate(rollout.time_s):
            stream.set_time(TIMELINE, duration=k * rollout.dt_s)
            stream.log("scene", rr.EncodedImage(contents=_jpeg(view.picture(time_s)), media_type="image/jpeg"))
        stream.reset_time()
    line = _lines(stream, rollout)
    _log_spec(line, task, rollout)
    for group, names, values in (
        ("control_input", task.control, rollout.control),
        ("state", task.state, rollout.state),
    ):
        for j, (name, unit) in enumerate(names.items()):
            line(f"{group}/{name}", values[:, j], f"{name} [{unit}]", SERIES_RGB[j % len(SERIES_RGB)])
    _log_control(stream, rollout)
    stream.log("about", rr.TextDocument(_about(task, rollout), media_type=rr.MediaType.MARKDOWN), static=True)


def blueprint(task: SceneTask, rollout: ArmRollout, *, pictures: bool = True) -> rrb.Blueprint:
    """How the viewer lays a recording out: scene and controller left; pictures, robustness and joints right."""
    scene = rrb.Spatial3DView(
        origin="/world",
        contents=["+ $origin/**", *(f"- $origin/camera/{camera.name}/**" for camera in task.cameras)],
        name=task.instruction,
        background=rrb.Background(kind=rrb.BackgroundKind.SolidColor, color=(247, 248, 250)),
        line_grid=rrb.LineGrid3D(spacing=0.25, color=(150, 160, 170, 90)),
        eye_controls=rrb.EyeControls3D(
            kind=rrb.Eye3DKind.Orbital, position=EYE_POSITION, look_target=EYE_TARGET, eye_up=(0, 0, 1)
        ),
    )
    control = rrb.StateTimelineView(origin="/control", name="who was in control")
    left = rrb.Vertical(scene, control, row_shares=[5, 1])
    rows: list[rrb.View | rrb.Container] = []
    if pictures and task.cameras:
        views = [
            rrb.Spatial2DView(origin=f"/world/camera/{c.name}", contents=["$origin/**", *_OVERLAYS], name=c.name)
            for c in task.cameras
        ]
        rows.append(rrb.Horizontal(*views))
    quiet = rrb.PlotLegend(visible=False)
    rows += [
        *_spec_views(task, rollout),
        rrb.Tabs(
            rrb.TimeSeriesView(origin="/joint_pos_rad", name="joints [rad]", plot_legend=quiet),
            rrb.TimeSeriesView(origin="/joint_vel_rad_s", name="joint velocities [rad/s]", plot_legend=quiet),
            rrb.TimeSeriesView(origin="/tracking_error_rad", name="tracking error [rad]", plot_legend=quiet),
            rrb.TimeSeriesView(origin="/plan_ms", name="planning time [ms]", plot_legend=quiet),
            rrb.TextDocumentView(origin="/about", name="about"),
            active_tab=0,
        ),
    ]
    return _layout(left, rows)


def _spec_views(task: Task, rollout: Rollout) -> list[rrb.View | rrb.Container]:
    legend = rrb.PlotLegend(rrb.Corner2D.RightTop)
    return [
        rrb.TimeSeriesView(
            origin="/rho", name="robustness of the specification (satisfied above 0)", plot_legend=legend
        ),
        rrb.Tabs(
            *(
                rrb.TimeSeriesView(
                    origin=f"/predicates/{i}", name=f"robustness of its predicates [{unit}]", plot_legend=legend
                )
                for i, unit in enumerate(predicates_by_unit(task, rollout))
            ),
            active_tab=0,
        ),
    ]


def _layout(left: rrb.Container, rows: list[rrb.View | rrb.Container]) -> rrb.Blueprint:
    return rrb.Blueprint(
        rrb.Horizontal(left, rrb.Vertical(*rows), column_shares=[5, 4]),
        rrb.TimePanel(timeline=TIMELINE, state="collapsed", play_state="paused"),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_views=False,
    )


_OVERLAYS = ("/world/plan", "/world/trail")


def _log(stream: rr.RecordingStream, playback: Playback, pictures: bool) -> None:
    rollout = playback.rollout
    times = rr.TimeColumn(TIMELINE, duration=rollout.time_s)
    _log_shapes(stream, playback)
    _log_motion(stream, playback, times)
    _log_lines(stream, rollout)
    _log_series(stream, playback.task, rollout)
    _log_control(stream, rollout)
    stream.log("about", rr.TextDocument(_about(playback.task, rollout), media_type=rr.MediaType.MARKDOWN), static=True)
    if pictures and playback.task.cameras:
        _log_pictures(stream, playback)


# ---- the scene -----------------------------------------------------------------


def _log_shapes(stream: rr.RecordingStream, playback: Playback) -> None:
    """Every visible geom and site, once, in the frame of its body."""
    model = playback.model
    stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for body in range(model.nbody):
        shapes: dict[str, list[tuple]] = {}
        for geom in range(model.ngeom):
            seen = model.geom_group[geom] <= MOST_GROUP and geom_rgba(model, geom)[3] > 0
            if model.geom_bodyid[geom] == body and seen:
                shape = mujoco.mjtGeom(model.geom_type[geom])
                if shape == mujoco.mjtGeom.mjGEOM_MESH:
                    stream.log(f"{_path(model, body)}/mesh{geom}", _mesh(model, geom), static=True)
                elif shape == mujoco.mjtGeom.mjGEOM_PLANE:
                    stream.log(f"{_path(model, body)}/plane{geom}", _plane(model, geom), static=True)
                elif kind := _KINDS.get(shape):
                    row = (model.geom_pos[geom], model.geom_quat[geom], model.geom_size[geom], geom_rgba(model, geom))
                    shapes.setdefault(kind, []).append(row)
        for site in range(model.nsite):
            kind = _KINDS.get(mujoco.mjtGeom(model.site_type[site]))
            if model.site_bodyid[site] == body and model.site_group[site] <= MOST_GROUP and kind:
                row = (model.site_pos[site], model.site_quat[site], model.site_size[site], model.site_rgba[site])
                shapes.setdefault(kind, []).append(row)
        for kind, rows in shapes.items():
            pos, quat, size, rgba = (np.array(column) for column in zip(*rows, strict=True))
            stream.log(f"{_path(model, body)}/{kind}", _archetype(kind, pos, quat, size, rgba), static=True)
        if model.body_mocapid[body] >= 0:
            name = rr.Points3D([[0, 0, 0]], labels=[model.body(body).name.replace("_", " ")], radii=0, colors=[INK_RGB])
            stream.log(f"{_path(model, body)}/name", name, static=True)


_KINDS = {
    mujoco.mjtGeom.mjGEOM_BOX: "boxes",
    mujoco.mjtGeom.mjGEOM_SPHERE: "spheres",
    mujoco.mjtGeom.mjGEOM_ELLIPSOID: "ellipsoids",
    mujoco.mjtGeom.mjGEOM_CAPSULE: "capsules",
    mujoco.mjtGeom.mjGEOM_CYLINDER: "cylinders",
}


def _archetype(kind: str, pos: np.ndarray, quat: np.ndarray, size: np.ndarray, rgba: np.ndarray) -> rr.AsComponents:
    """Shapes of one kind: pos (n, 3) [m], quat (n, 4) wxyz, MuJoCo's size (n, 3), rgba (n, 4) in 0..1."""
    quaternions = quat[:, [1, 2, 3, 0]]
    common: dict[str, Any] = dict(
        quaternions=quaternions,
        colors=(rgba * 255).round().astype(np.uint8),
        fill_mode="solid",
    )
    if kind == "boxes":
        return rr.Boxes3D(centers=pos, half_sizes=size, **common)
    if kind in ("spheres", "ellipsoids"):
        half = np.repeat(size[:, :1], 3, axis=1) if kind == "spheres" else size
        return rr.Ellipsoids3D(centers=pos, half_sizes=half, **common)
    radii, lengths = size[:, 0], 2 * size[:, 1]
    if kind == "cylinders":
        return rr.Cylinders3D(centers=pos, radii=radii, lengths=lengths, **common)
    # rerun's capsules begin at their origin, MuJoCo's are centred on it.
    axis = np.empty((len(pos), 3))
    for row, q in zip(axis, quat, strict=True):
        mujoco.mju_rotVecQuat(row, np.array([0.0, 0.0, 1.0]), q)
    return rr.Capsules3D(translations=pos - axis * size[:, 1:2], radii=radii, lengths=lengths, **common)


def _mesh(model: mujoco.MjModel, geom: int) -> rr.Mesh3D:
    mesh = model.geom_dataid[geom]
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    vertices = model.mesh_vert[first : first + count] @ rotation.reshape(3, 3).T + model.geom_pos[geom]
    face, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    return rr.Mesh3D(
        vertex_positions=vertices,
        triangle_indices=model.mesh_face[face : face + faces],
        albedo_factor=(geom_rgba(model, geom) * 255).round().astype(np.uint8),
    )


def _plane(model: mujoco.MjModel, geom: int) -> rr.Boxes3D:
    # A hair below its place, so that the view's grid lies on it.
    half = np.where(model.geom_size[geom] > 0, np.minimum(model.geom_size[geom], PLANE_HALF_M), PLANE_HALF_M)
    return rr.Boxes3D(
        centers=[model.geom_pos[geom] - [0.0, 0.0, 0.006]],
        half_sizes=[[half[0], half[1], 0.004]],
        quaternions=[model.geom_quat[geom][[1, 2, 3, 0]]],
        colors=[FLOOR_RGB],
        fill_mode="solid",
    )


def _path(model: mujoco.MjModel, body: int) -> str:
    return f"world/{model.body(body).name}" if body else "world/fixed"


def _log_motion(stream: rr.RecordingStream, playback: Playback, times: rr.TimeColumn) -> None:
    """Poses of all bodies over time, in the world."""
    model, data, rollout = playback.model, playback.data, playback.rollout
    pos, quat = np.empty((rollout.steps + 1, model.nbody, 3)), np.empty((rollout.steps + 1, model.nbody, 4))
    for k, time_s in enumerate(rollout.time_s):
        playback.pose(time_s)
        pos[k], quat[k] = data.xpos, data.xquat
    for body in range(1, model.nbody):
        columns = rr.Transform3D.columns(translation=pos[:, body], quaternion=quat[:, body][:, [1, 2, 3, 0]])
        stream.send_columns(_path(model, body), indexes=[times], columns=columns)


def _log_lines(stream: rr.RecordingStream, rollout: ArmRollout) -> None:
    """Predicted path of each step, executed path so far in the colour of who made it, paths of what moved."""
    for name, way in rollout.bodies.items():
        if np.ptp(way, axis=0).max() > 1e-6:
            stream.log(f"world/path/{name}", rr.LineStrips3D([way], colors=[PATH_RGB], radii=0.003), static=True)
    colours = [CONTROLLER_RGB[CONTROLLERS[c]] for c in rollout.controller]
    legs = np.stack([rollout.ee_pos[:-1], rollout.ee_pos[1:]], axis=1)
    for k in range(rollout.steps + 1):
        stream.set_time(TIMELINE, duration=k * rollout.dt_s)
        if k:
            stream.log("world/trail", rr.LineStrips3D(legs[:k], colors=colours[:k], radii=0.004))
        if k < rollout.steps:
            plan = rollout.plan_ee[k]
            plan = plan[np.isfinite(plan).all(axis=1)]
            stream.log("world/plan", rr.LineStrips3D([plan] if len(plan) else [], colors=[PLAN_RGB], radii=0.006))
    stream.reset_time()


def _log_pictures(stream: rr.RecordingStream, playback: Playback) -> None:
    width, height = IMAGE_SIZE
    for camera in playback.task.cameras:
        focal = float(height / 2 / np.tan(np.radians(camera.fovy_deg) / 2))
        stream.log(
            f"world/camera/{camera.name}",
            rr.Pinhole(focal_length=focal, width=width, height=height, camera_xyz=rr.ViewCoordinates.RUB),
            static=True,
        )
    quality = playback.model.vis.quality
    quality.shadowsize, quality.offsamples = SHADOW_SIZE, 0
    with Renderer(playback.model, (height, width), pretty=True) as renderer:
        for k, time_s in enumerate(playback.rollout.time_s):
            playback.pose(time_s)
            stream.set_time(TIMELINE, duration=k * playback.rollout.dt_s)
            for camera in playback.task.cameras:
                at = playback.data.camera(camera.name)
                path = f"world/camera/{camera.name}"
                stream.log(path, rr.Transform3D(translation=at.xpos, mat3x3=at.xmat.reshape(3, 3)))
                picture = _jpeg(renderer.rgb(playback.data, camera.name))
                stream.log(f"{path}/image", rr.EncodedImage(contents=picture, media_type="image/jpeg"))
    stream.reset_time()


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return buffer.getvalue()


# ---- the numbers -----------------------------------------------------------------


def _lines(stream: rr.RecordingStream, rollout: Rollout) -> Callable[..., None]:
    """A function that logs a series: path, values of every sample or step, name, colour, width."""

    def line(path: str, values: np.ndarray, name: str, colour: tuple[int, ...], width: float = 1.5) -> None:
        stream.log(path, rr.SeriesLines(names=[name], colors=[colour], widths=[width]), static=True)
        # A plot of infinities shows nothing else; nothing is known yet where they stand.
        values = np.where(np.isfinite(values), values, np.nan)
        index = rr.TimeColumn(TIMELINE, duration=rollout.time_s[: len(values)])
        stream.send_columns(path, indexes=[index], columns=rr.Scalars.columns(scalars=values))

    return line


def _log_spec(line: Callable[..., None], task: Task, rollout: Rollout) -> None:
    line("rho/high", rollout.rho_high, "at most", (140, 180, 225))
    line("rho/low", rollout.rho_low, "at least", RHO_RGB, 2.5)
    line("rho/plan", rollout.plan_rho, "predicted by the plan", PLAN_RGB)
    for i, predicates in enumerate(predicates_by_unit(task, rollout).values()):
        for j, (text, colour) in enumerate(predicates):
            line(f"predicates/{i}/{j}", rollout.predicates[text], text, colour)
    line("plan_ms/act", rollout.plan_ms, "planning time [ms]", RHO_RGB)


def _log_series(stream: rr.RecordingStream, task: SceneTask, rollout: ArmRollout) -> None:
    line = _lines(stream, rollout)
    _log_spec(line, task, rollout)
    for j, joint in enumerate(task.robot.joints):
        colour = SERIES_RGB[j % len(SERIES_RGB)]
        line(f"joint_pos_rad/{joint}/is", rollout.joint_pos[:, j], joint, colour, 2.0)
        line(f"joint_pos_rad/{joint}/command", rollout.command_pos[:, j], f"{joint} command", (*colour, 110), 1.0)
        line(f"joint_vel_rad_s/{joint}/is", rollout.joint_vel[:, j], joint, colour, 2.0)
        line(f"joint_vel_rad_s/{joint}/command", rollout.command_vel[:, j], f"{joint} command", (*colour, 110), 1.0)
        line(f"tracking_error_rad/{joint}", rollout.joint_pos[:, j] - rollout.command_pos[:, j], joint, colour)


def _log_control(stream: rr.RecordingStream, rollout: Rollout) -> None:
    stream.log(
        "control/controller",
        rr.StateConfiguration(
            values=list(CONTROLLERS), labels=list(CONTROLLERS), colors=[(*CONTROLLER_RGB[c], 255) for c in CONTROLLERS]
        ),
        static=True,
    )
    before = -1
    for k, controller in enumerate(rollout.controller):
        if controller != before:
            stream.set_time(TIMELINE, duration=k * rollout.dt_s)
            stream.log("control/controller", rr.StateChange(state=CONTROLLERS[controller]))
            before = controller
    stream.reset_time()


def _about(task: Task, rollout: Rollout) -> str:
    verdict = "satisfied" if rollout.satisfied else "**not satisfied**"
    parts = "\n".join(f"- `{text}`: {value:+.4f}" for text, value in rollout.parts.items())
    violations = "\n".join(f"- {line}" for line in rollout.violations) or "none"
    shares = ", ".join(f"{name} {100 * rollout.share(name):.0f} %" for name in CONTROLLERS)
    return (
        f"# {rollout.task}, seed {rollout.seed}\n\n{task.instruction}\n\n"
        f"Policy `{rollout.policy}`: specification {verdict}, rho = {rollout.rho:+.4f}; "
        f"success: {'yes' if rollout.success else 'no'}\n\n## Parts of the specification\n\n{parts}\n\n"
        f"## In control\n\n{shares}\n\n## Safety violations\n\n{violations}\n"
    )
