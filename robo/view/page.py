"""A live session as a web page, by viser: the scene, buttons, what is known of the episode, pictures, a point cloud."""

from __future__ import annotations

import contextlib
import io
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from robo.core.errors import MissingDependencyError, RenderError, RoboError
from robo.view.live import SPEEDS, Moment, Session
from robo.view.serve import HOST, WEB_PORT, choose_port
from robo.view.style import BAD_RGB, GOOD_RGB
from sim import pointcloud
from sim.coarse import MOST_GROUP
from sim.pictures import IMAGES, Pictures
from sim.render import Renderer
from sim.scene import geom_rgba
from tasks.arm import Camera, SceneTask
from tasks.task import Task

if TYPE_CHECKING:
    import viser

FARTHER, ASIDE_RAD, FOV_RAD = 1.35, -0.7, 0.75
"""The page looks as the task's first camera that stands, but from farther away and aside."""
PICTURE_PX, CLOUD_PX = (240, 320), (120, 160)
"""Height and width of the picture that is shown, and of those that become a point cloud."""
CLOUD_BOX = ((-0.6, -1.2, -0.05), (1.4, 1.2, 1.5))
"""What of a point cloud is shown, in the frame of the robot's base [m]."""
TEXT_S, PICTURE_S, CLOUD_S = 0.1, 0.1, 0.25
"""Texts, the picture and the cloud are drawn anew at most so often."""
IDLE_S = 0.2
"""Whether to stop is asked at least so often."""
NONE = "none"
"""The choice of no camera."""


class Page:
    """A session as a web page on this machine alone; close it.

    What is pressed on the page is done by `serve`, in its thread: MuJoCo and OpenGL are for one thread each.

    Args:
        session: What is shown.
        port: Port; by default 9090, or a free one if that is taken.

    Raises:
        ConfigError: A port that was asked for is taken.
    """

    def __init__(self, session: Session, port: int | None = None) -> None:
        self.session = session
        self._todo: queue.Queue[Callable[[], None]] = queue.Queue()
        self._watched, self._trouble = False, ""
        self._points: viser.PointCloudHandle | None = None
        cameras = [camera.name for camera in session.task.cameras]
        port = choose_port(port, WEB_PORT, "--port")
        self._views = Views(session.env, cameras)
        self._server = _server(port, session.task)
        self.url = f"http://{HOST}:{self._server.get_port()}"
        self._shapes = Shapes(self._server.scene, session.env.model)
        self._moved, self._told = _Layer(self._draw_shapes), _Layer(self._draw_texts, TEXT_S)
        self._seen, self._measured = _Layer(self._draw_picture, PICTURE_S), _Layer(self._draw_cloud, CLOUD_S)
        self._layers = (self._moved, self._told, self._seen, self._measured)
        self._lay_out(self._server.gui, cameras)
        self._server.on_client_connect(lambda client: self._todo.put(self._begin))

    def serve(self, stop: threading.Event) -> None:
        """Play and draw until it is stopped. Time begins to pass when the first browser looks."""
        while not stop.is_set():
            wait_s = min(IDLE_S, self.session.wait_s(), *(layer.wait_s() for layer in self._layers))
            with contextlib.suppress(queue.Empty):
                self._do(self._todo.get(timeout=max(wait_s, 1e-4)))
            if self.session.running:
                self._play()
            for layer in self._layers:
                layer.draw_if_due()

    def close(self) -> None:
        """Stop serving and free the renderers."""
        with _quiet():
            self._server.stop()
        self._views.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- what is pressed -------------------------------------------------------

    def _lay_out(self, gui: viser.GuiApi, cameras: Sequence[str]) -> None:
        from viser import Icon

        session = self.session
        gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        self._head = gui.add_html("")
        with gui.add_folder("Play"):
            self._run = gui.add_button("Run")
            self._when(self._run.on_click, self._toggle)
            step = gui.add_button("Step", icon=Icon.PLAYER_SKIP_FORWARD, hint="Pause, and take one control step")
            self._when(step.on_click, session.step)
            real = 1.0 if session.speed == math.inf else session.speed
            self._speed = gui.add_slider("Speed", *SPEEDS, 0.1, real, marks=((0.1, "0.1x"), (1.0, "1x"), (4.0, "4x")))
            self._when(self._speed.on_update, self._set_speed)
            self._fastest = gui.add_checkbox("Unlimited", session.speed == math.inf, hint="As fast as possible")
            self._when(self._fastest.on_update, self._set_speed)
            self._seed = gui.add_number("Seed", session.seed, min=0, step=1)
            again = gui.add_button_group("Episode", ("Reset", "Next seed"))
            self._when(again.on_click, lambda: self._reset(int(self._seed.value) + (again.value == "Next seed")))
            self._policy = gui.add_dropdown("Policy", session.policies, initial_value=session.policy)
            self._when(self._policy.on_update, self._choose)
        with gui.add_folder("Episode"):
            self._state = gui.add_html("")
        with gui.add_folder("Cameras"):
            dark, cloudless = self._views.no_picture, self._views.no_cloud
            self._camera = gui.add_dropdown(
                "Picture", [NONE, *cameras], initial_value=NONE if dark else cameras[0], disabled=bool(dark)
            )
            self._when(self._camera.on_update, self._seen.expire)
            self._kind = gui.add_dropdown("Kind", IMAGES, disabled=bool(dark), hint="Colour, depth, which geom")
            self._when(self._kind.on_update, self._seen.expire)
            self._picture = gui.add_image(np.zeros((*PICTURE_PX, 3), np.uint8), format="jpeg", visible=False)
            self._cloud = gui.add_checkbox("Point cloud", False, disabled=bool(cloudless))
            self._when(self._cloud.on_update, self._measured.expire)
            for reason in dict.fromkeys(filter(None, (dark, cloudless))):
                gui.add_html(_box(escape(reason)))
            solid = gui.add_checkbox("Shapes", True)
            self._when(solid.on_update, lambda: self._shapes.show(solid.value))
        with gui.add_folder("Signals", expand_by_default=False):
            self._signals = gui.add_html("")

    def _when(self, used: Callable[[Callable[[Any], None]], Any], action: Callable[[], None]) -> None:
        """Have `serve` do something when a part of the page is used."""

        def put(event: viser.GuiEvent) -> None:
            if event.client_id is not None:  # else it was set by us
                self._todo.put(action)

        used(put)

    def _do(self, action: Callable[[], None]) -> None:
        """Do what was pressed; what goes wrong with it stands on the page until something else is pressed."""
        self._trouble = ""
        self._try(action)
        self._expire()

    def _play(self) -> None:
        def advance() -> None:
            if self.session.advance():
                self._expire()

        self._try(advance)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except RoboError as error:
            self._trouble = str(error)
            self._expire()

    def _expire(self) -> None:
        for layer in self._layers:
            layer.expire()

    def _begin(self) -> None:
        if not self._watched:
            self._watched = True
            self.session.run()

    def _toggle(self) -> None:
        (self.session.pause if self.session.running else self.session.run)()

    def _reset(self, seed: int) -> None:
        self.session.reset(seed)
        self._seed.value = seed

    def _choose(self) -> None:
        try:
            self.session.choose(self._policy.value)
        finally:
            self._policy.value = self.session.policy

    def _set_speed(self) -> None:
        self.session.set_speed(math.inf if self._fastest.value else float(self._speed.value))

    # ---- what is drawn ---------------------------------------------------------

    def _draw_shapes(self) -> None:
        with self._server.atomic():
            self._shapes.draw(self.session.env.data)

    def _draw_texts(self) -> None:
        from viser import Icon

        session, moment = self.session, self.session.moment
        self._run.label, self._run.icon = ("Pause", Icon.PLAYER_PAUSE) if session.running else ("Run", Icon.PLAYER_PLAY)
        trouble = f"<br>{_span(self._trouble, BAD_RGB)}" if self._trouble else ""
        self._head.content = _box(f"<b>{escape(session.task.name)}</b><br>{escape(moment.instruction)}{trouble}")
        self._state.content = _box(_stages(session.task, moment) + _table(_facts(session.task, moment)))
        units = session.task.signals
        self._signals.content = _box(
            _table({name: f"{value:.4f} {units[name].unit}" for name, value in moment.signals.items()})
        )

    def _draw_picture(self) -> None:
        self._picture.visible = shown = self._camera.value != NONE
        if shown:
            self._picture.image = self._views.picture(self._camera.value, self._kind.value)

    def _draw_cloud(self) -> None:
        if not self._cloud.value:
            if self._points is not None:
                self._points.remove()
                self._points = None
            return
        env, cloud = self.session.env, self._views.cloud()
        base = pointcloud.base_body(env.model, env.task.robot)
        self._points = self._server.scene.add_point_cloud(
            "/cloud",
            cloud.points.astype(np.float32),
            cloud.colours,
            point_size=0.003,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
            position=env.data.xpos[base],
            wxyz=env.data.xquat[base],
        )


class _Layer:
    """A part of the page that is drawn anew when it is out of date, but not too often."""

    def __init__(self, draw: Callable[[], None], every_s: float = 0.0) -> None:
        self._draw, self._every_s, self._expired, self._next_s = draw, every_s, True, 0.0

    def expire(self) -> None:
        """It is out of date."""
        self._expired = True

    def wait_s(self) -> float:
        """How long until it is to be drawn."""
        return max(self._next_s - time.monotonic(), 0.0) if self._expired else math.inf

    def draw_if_due(self) -> None:
        """Draw it, if it is out of date and its time has come."""
        if self.wait_s() == 0.0:
            self._expired = False
            self._draw()
            self._next_s = time.monotonic() + self._every_s


class Views:
    """What the cameras of an environment see, for people; close it.

    Attributes:
        no_picture, no_cloud: Why there are no pictures or no point clouds; empty if there are.
    """

    def __init__(self, env: Any, cameras: Sequence[str]) -> None:
        self.env = env
        self._renderer: Renderer | None = None
        self._pictures: Pictures | None = None
        self.no_picture = self.no_cloud = "" if cameras else f"task {env.task.name} has no cameras"
        if cameras:
            try:
                self._renderer = Renderer(env.model, PICTURE_PX)
                self._pictures = Pictures(env.model, cameras, ("rgb", "depth"), CLOUD_PX)
                pointcloud.load()
            except RenderError as error:
                self.no_picture = self.no_cloud = str(error)
            except MissingDependencyError as error:
                self.no_cloud = str(error)

    def picture(self, camera: str, kind: str) -> np.ndarray:
        """What a camera sees now, of a kind of `IMAGES`, (*PICTURE_PX, 3) uint8; what is near is bright."""
        assert self._renderer is not None, self.no_picture
        seen = getattr(self._renderer, kind)(self.env.data, camera)
        return _PAINT[kind](seen)

    def cloud(self) -> pointcloud.Cloud:
        """What all cameras see now."""
        assert self._pictures is not None, self.no_cloud
        return pointcloud.point_cloud(self.env, self._pictures.take(self.env.data), box=CLOUD_BOX)

    def close(self) -> None:
        """Free the renderers."""
        for one in (self._renderer, self._pictures):
            if one is not None:
                one.close()


def _paint_depth(depth: np.ndarray) -> np.ndarray:
    bright = np.where(depth > 0.0, 255.0 * (1.0 - depth / max(float(depth.max()), 1e-6)), 0.0)
    return np.repeat(bright.astype(np.uint8)[..., None], 3, axis=-1)


def _paint_geoms(geoms: np.ndarray) -> np.ndarray:
    """One colour for every geom, whatever else is seen."""
    share = (geoms[..., None] * np.array([0.618, 0.413, 0.271])) % 1.0  # far apart for neighbours
    return np.where(geoms[..., None] < 0, 0, 50 + 205 * share).astype(np.uint8)


_PAINT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rgb": lambda picture: picture,
    "depth": _paint_depth,
    "seg": _paint_geoms,
}


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """viser says where it listens and when it stops; our command does so itself."""
    return contextlib.redirect_stdout(io.StringIO())


def _server(port: int, task: SceneTask) -> viser.ViserServer:
    import viser  # lazily: a session needs none

    class Private(viser.ViserServer):
        """A server that never asks another machine to show it to the world, whoever asks for it."""

        def request_share_url(self, verbose: bool = True) -> str | None:
            return None

    with _quiet():
        server = Private(HOST, port, label=task.name, verbose=False)
    camera, scene = server.initial_camera, server.scene
    camera.position, camera.look_at = _eye(task)
    camera.fov = FOV_RAD
    # Colours come out as they are where the sun shines; the usual surroundings wash them out.
    scene.configure_environment_map(None)
    scene.configure_default_lights(False)
    scene.add_light_ambient("/light/sky", intensity=1.0)
    scene.add_light_directional("/light/sun", intensity=2.1, cast_shadow=True, position=(1.0, -1.4, 3.0))
    scene.add_light_directional("/light/fill", intensity=0.5, position=(-2.0, 1.0, 1.5))
    return server


def _eye(task: SceneTask) -> tuple[np.ndarray, np.ndarray]:
    """Where the page looks from, and at what, (3,) each [m]."""
    standing = [camera for camera in task.cameras if camera.body is None]
    first = standing[0] if standing else Camera(name="", position=(1.75, 0.0, 0.95), target=(0.25, 0.0, 0.40))
    (x, y, z), target = FARTHER * np.subtract(first.position, first.target), np.array(first.target)
    c, s = np.cos(ASIDE_RAD), np.sin(ASIDE_RAD)
    return np.add(target, (c * x - s * y, s * x + c * y, z)), target


# ---- shapes ----------------------------------------------------------------------


class Shapes:
    """What is visible of a model, in viser's scene.

    Args:
        scene: Where it is put.
        model: Whose geoms and sites.
    """

    def __init__(self, scene: viser.SceneApi, model: mujoco.MjModel) -> None:
        self.model = model
        self._root = scene.add_frame(ROOT, show_axes=False)
        self._bodies = [scene.add_frame(f"{ROOT}/{body}", show_axes=False) for body in range(model.nbody)]
        self._poses = np.full((model.nbody, 7), np.nan)
        self._geoms = {i: handle for i in range(model.ngeom) if (handle := _geom(scene, model, i)) is not None}
        self._colours = {i: geom_rgba(model, i) for i in self._geoms}
        for site in range(model.nsite):
            if model.site_group[site] <= MOST_GROUP and model.site_rgba[site, 3] > 0.0:
                name = f"{ROOT}/{model.site_bodyid[site]}/site{site}"
                looks = {
                    "position": model.site_pos[site],
                    "wxyz": model.site_quat[site],
                    "color": _colour(model.site_rgba[site]),
                    "opacity": _opacity(model.site_rgba[site]),
                    "cast_shadow": False,
                }
                _add(scene, name, _SHAPE(model.site_type[site]), model.site_size[site], looks)
        for body in range(model.nbody):
            if model.body_mocapid[body] >= 0:
                scene.add_label(f"{ROOT}/{body}/name", model.body(body).name.replace("_", " "), anchor="bottom-center")

    def draw(self, data: mujoco.MjData) -> None:
        """Put everything where it is now, in the colour it has now."""
        poses = np.concatenate([data.xpos, data.xquat], axis=1)
        for body in np.flatnonzero((poses != self._poses).any(axis=1)):
            self._bodies[body].position, self._bodies[body].wxyz = poses[body, :3], poses[body, 3:]
        self._poses = poses
        for geom, handle in self._geoms.items():
            rgba = geom_rgba(self.model, geom)
            if not np.array_equal(rgba, self._colours[geom]):
                handle.color, handle.opacity = _colour(rgba), _opacity(rgba)
                self._colours[geom] = rgba

    def show(self, visible: bool) -> None:
        """Show or hide them."""
        self._root.visible = visible


ROOT = "/shapes"
PLANE_HALF_M, THIN_M = 3.0, 0.01
"""How much of a plane is shown, from its middle to its sides, and how thick."""
_SHAPE = mujoco.mjtGeom


def _geom(scene: viser.SceneApi, model: mujoco.MjModel, geom: int) -> Any:
    """A geom in the frame of its body; None for what is not seen."""
    rgba = geom_rgba(model, geom)
    if model.geom_group[geom] > MOST_GROUP or rgba[3] == 0.0:
        return None
    name, kind = f"{ROOT}/{model.geom_bodyid[geom]}/geom{geom}", _SHAPE(model.geom_type[geom])
    looks: dict[str, Any] = {
        "position": model.geom_pos[geom],
        "wxyz": model.geom_quat[geom],
        "color": _colour(rgba),
        "opacity": _opacity(rgba),
        "receive_shadow": bool(model.body_weldid[model.geom_bodyid[geom]] == 0),  # on what moves they flicker
    }
    if kind == _SHAPE.mjGEOM_MESH:
        return scene.add_mesh_simple(name, *_mesh(model, model.geom_dataid[geom]), **looks)
    return _add(scene, name, kind, model.geom_size[geom], looks)


def _add(scene: viser.SceneApi, name: str, kind: mujoco.mjtGeom, size: np.ndarray, looks: dict[str, Any]) -> Any:
    """A primitive of MuJoCo's kind and size (3,) [m]; None for what is none."""
    if kind == _SHAPE.mjGEOM_BOX:
        return scene.add_box(name, dimensions=2 * size, **looks)
    if kind in (_SHAPE.mjGEOM_SPHERE, _SHAPE.mjGEOM_ELLIPSOID):
        axes = size[[0, 0, 0]] if kind == _SHAPE.mjGEOM_SPHERE else size
        return scene.add_icosphere(name, radius=1.0, scale=tuple(axes.tolist()), **looks)
    if kind == _SHAPE.mjGEOM_CYLINDER:
        return scene.add_cylinder(name, radius=size[0], height=2 * size[1], radial_segments=48, **looks)
    if kind == _SHAPE.mjGEOM_CAPSULE:
        from trimesh.creation import capsule

        mesh = capsule(height=2 * size[1], radius=size[0], count=[24, 24])
        return scene.add_mesh_simple(name, mesh.vertices - mesh.bounds.mean(axis=0), mesh.faces, **looks)
    if kind == _SHAPE.mjGEOM_PLANE:
        half = np.where(size[:2] > 0.0, np.minimum(size[:2], PLANE_HALF_M), PLANE_HALF_M)
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, looks["wxyz"])
        below = looks["position"] - turn.reshape(3, 3)[:, 2] * THIN_M / 2
        looks = looks | {"position": below, "cast_shadow": False}
        return scene.add_box(name, dimensions=(*(2 * half), THIN_M), **looks)
    return None


def _mesh(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) [m] and faces (m, 3); corners share a vertex where they share its normal, so edges stay sharp."""
    face, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    corners = np.stack([model.mesh_face[face : face + count], model.mesh_facenormal[face : face + count]], axis=-1)
    unique, index = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    first, vertices = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    return model.mesh_vert[first : first + vertices][unique[:, 0]], index.reshape(-1, 3)


def _colour(rgba: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (255 * rgba[:3]).round().astype(int).tolist()
    return red, green, blue


def _opacity(rgba: np.ndarray) -> float | None:
    return float(rgba[3]) if rgba[3] < 1.0 else None


# ---- texts -------------------------------------------------------------------------


def _box(html: str) -> str:
    return f'<div style="padding: 0.2em 0.9em 0.4em; font-size: 0.85em; line-height: 1.45">{html}</div>'


def _span(text: str, rgb: tuple[int, ...]) -> str:
    return f'<span style="color: rgb{tuple(rgb)}; font-weight: 600">{escape(text)}</span>'


def _table(rows: dict[str, str]) -> str:
    """Names and values (HTML already)."""
    cell = '<td style="padding: 0 0.8em 0 0; vertical-align: top">{}</td>'
    lines = (f"<tr>{cell.format(escape(name))}{cell.format(value)}</tr>" for name, value in rows.items())
    return f'<table style="font-variant-numeric: tabular-nums">{"".join(lines)}</table>'


def _stages(task: Task, moment: Moment) -> str:
    """Stages in order: those reached, the current one, those to come."""

    def line(i: int, name: str) -> str:
        if i < moment.stage:
            return _span(f"✓ {name}", GOOD_RGB)
        return (
            f"<b>▶ {escape(name)}</b>" if i == moment.stage else f'<span style="opacity: 0.6">· {escape(name)}</span>'
        )

    return "<br>".join(line(i, stage.name) for i, stage in enumerate(task.stages))


def _facts(task: Task, moment: Moment) -> dict[str, str]:
    low, high = moment.robustness
    known = f"{low:+.4f}" if low == high else f"{_bound(low)} .. {_bound(high)}"
    verdict = ("satisfied", GOOD_RGB) if low > 0 else ("not satisfied", BAD_RGB) if high <= 0 else None
    return {
        "time": f"{moment.time_s:.2f} of {task.horizon_s:g} s{' (over)' if moment.ended else ''}",
        "reward": f"{moment.reward:.3f}",
        "success": _span("yes", GOOD_RGB) if moment.success else "no",
        "robustness": f"{known} {_span(*verdict) if verdict else ''}",
        "violations": "<br>".join(_span(line, BAD_RGB) for line in moment.violations) or "none",
    }


def _bound(value: float) -> str:
    return f"{value:+.4f}" if math.isfinite(value) else ("∞" if value > 0 else "−∞")
