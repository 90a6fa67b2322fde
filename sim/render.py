"""Pictures of a scene: colour, depth and segmentation, without a screen.

MuJoCo chooses its OpenGL library when it is imported; here it is chosen when the first picture
is taken, so a process that takes none needs no OpenGL, and one that cannot take any says why.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import weakref
from functools import cache
from typing import Any

import mujoco
import numpy as np

from robo.core.errors import ConfigError, RenderError, UnknownNameError
from sim import mujoco_gl
from sim.coarse import seen

_MODULES = {"egl": "mujoco.egl", "osmesa": "mujoco.osmesa", "glfw": "mujoco.glfw", "glx": "mujoco.glfw"}
_PLATFORM = os.environ.get("PYOPENGL_PLATFORM")
"""As the user set it: opening a context sets it too."""
_MEND = (
    "install one with `apt-get install libegl1 libgl1-mesa-dri` (EGL) or `apt-get install libosmesa6` (OSMesa); "
    "`robo-info` shows what works"
)

# Run in a process of its own: a broken OpenGL library may end the process instead of raising.
_PROBE = """
import mujoco, numpy, {module} as gl
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size=".5" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
context = gl.GLContext(32, 32)
context.make_current()
render = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, render)
scene, camera = mujoco.MjvScene(model, 100), mujoco.MjvCamera()
mujoco.mjv_defaultFreeCamera(model, camera)
mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
pixels, box = numpy.zeros((32, 32, 3), numpy.uint8), mujoco.MjrRect(0, 0, 32, 32)
mujoco.mjr_render(box, scene, render)
mujoco.mjr_readPixels(pixels, None, box, render)
raise SystemExit(0 if pixels[16, 16, 0] > pixels[0, 0, 0] + 20 else "the picture is empty")
"""


@cache
def probe(name: str) -> str:
    """Try an OpenGL library (``"egl"``, ``"osmesa"``, ``"glfw"``): an empty text if it draws, else why not."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    if _PLATFORM is not None:
        environment["PYOPENGL_PLATFORM"] = _PLATFORM
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE.format(module=_MODULES[name])],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return "does not answer within 60 s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with code {done.returncode}"


@cache
def backend() -> str:
    """The OpenGL library pictures are taken with: that of ``MUJOCO_GL`` if set, else EGL, else OSMesa.

    Raises:
        RenderError: ``MUJOCO_GL`` names none that exists or switches rendering off, or none works; says how to mend it.
    """
    wanted = mujoco_gl()
    if wanted == "off":
        raise RenderError(f"MUJOCO_GL={os.environ['MUJOCO_GL']} switches rendering off; unset it to take pictures")
    if wanted:
        return wanted
    failures = []
    for name in ("egl", "osmesa"):
        failure = probe(name)
        if not failure:
            return name
        failures.append(f"{name}: {failure}")
    raise RenderError(f"no renderer works ({'; '.join(failures)}); {_MEND}")


_PLAIN = {"shadowsize": 0, "offsamples": 0}
"""Quality of pictures that are observations: no shadows, no smoothing."""
_COARSE = {"numslices": 10, "numstacks": 5, "numquads": 2}
"""Round shapes of few triangles; a capsule as thick as an arm is off by up to 2 mm."""


def make_plain(model: mujoco.MjModel, coarse: bool = True) -> None:
    """Set the quality of a model to that of observations: software draws them some hundred times faster."""
    for name, value in (_PLAIN | _COARSE if coarse else _PLAIN).items():
        setattr(model.vis.quality, name, value)


def frame_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of pictures from one number for both, or the two [pixels].

    Raises:
        ConfigError: Not between 1 and 4096.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and 1 <= n <= 4096 for n in pair):
        raise ConfigError(f"a picture's size is (height, width) in 1 .. 4096 pixels, not {size!r}")
    return pair


def camera_index(model: mujoco.MjModel, name: str) -> int:
    """Index of a camera of a model.

    Raises:
        UnknownNameError: No such camera; names the nearest one.
    """
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if index < 0:
        raise UnknownNameError("camera", name, [model.camera(i).name for i in range(model.ncam)])
    return index


_open: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _remember(renderer: Renderer) -> None:
    """Have a renderer closed when the process ends, before the OpenGL library is: that registered itself earlier."""
    if not _open:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _open.add(renderer)


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


class Renderer:
    """Takes pictures in one OpenGL context; use it from one thread and close it.

    Args:
        model: MuJoCo model. States of its twins are drawn as well: models that differ in numbers only, such as colours,
            lights, cameras; textures are those last renewed.
        size: Height and width, or one number for both [pixels].
        pretty: With sky, shadows and smooth shapes, for people. Off for observations; see `make_plain`.
        coarse: Without `pretty`: round shapes of few triangles and arms of few shapes, see `sim.coarse`, drawn three
            to five times faster; not for depth.

    Raises:
        RenderError: No renderer works; says how to mend it.
    """

    def __init__(
        self, model: mujoco.MjModel, size: int | tuple[int, int] = 96, *, pretty: bool = False, coarse: bool = False
    ) -> None:
        self._gl: Any = None
        self._context: Any = None
        self.model, self.size, self.pretty, self.coarse = model, frame_size(size), pretty, coarse
        height, width = self.size
        self._scene = mujoco.MjvScene(model, maxgeom=2 * (model.ngeom + model.nsite) + 100)
        for extra in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_SKYBOX):
            self._scene.flags[extra] = pretty
        self._option, self._solid = seen(coarse and not pretty), seen(coarse and not pretty)
        # Sites are marks (regions): seen, but without a surface that depth or segmentation could mean.
        self._solid.sitegroup[:] = 0
        self._box = mujoco.MjrRect(0, 0, width, height)
        self._cameras: dict[str, mujoco.MjvCamera] = {}
        name = backend()
        try:
            module = __import__(_MODULES[name], fromlist=["GLContext"])
            self._gl = module.GLContext(width, height)
            self._gl.make_current()
            self._context = self._make_context()
            _remember(self)
        except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
            self.close()
            unset = "unset MUJOCO_GL to have one chosen, or " if mujoco_gl() else ""
            raise RenderError(
                f"renderer {name} does not start ({' '.join(str(error).split())}); {unset}{_MEND}"
            ) from error

    def _make_context(self) -> Any:
        """Context with this renderer's size and quality; both are read from the model, which is put back."""
        size, quality = self.model.vis.global_, self.model.vis.quality
        before = size.offheight, size.offwidth, {name: getattr(quality, name) for name in _PLAIN | _COARSE}
        size.offheight, size.offwidth = self.size
        if not self.pretty:
            make_plain(self.model, self.coarse)
        try:
            context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        finally:
            size.offheight, size.offwidth, kept = before
            for name, value in kept.items():
                setattr(quality, name, value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        return context

    def camera(self, name: str) -> mujoco.MjvCamera:
        """A camera of the model by name.

        Raises:
            UnknownNameError: No such camera; names the nearest one.
        """
        if name not in self._cameras:
            camera = mujoco.MjvCamera()
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera_index(self.model, name)
            self._cameras[name] = camera
        return self._cameras[name]

    def rgb(self, data: mujoco.MjData, camera: str | mujoco.MjvCamera) -> np.ndarray:
        """Colour picture (H, W, 3) uint8, top row first. `data` needs up-to-date positions (``mj_forward``).

        Raises:
            UnknownNameError: No such camera.
            RenderError: The renderer is closed.
        """
        self._draw(data, camera, self._option, segment=False)
        return self._colours()

    def depth(self, data: mujoco.MjData, camera: str | mujoco.MjvCamera) -> np.ndarray:
        """Depth picture (H, W) float32 [m]: distance along the camera's axis; 0 where nothing is. Errors as `rgb`."""
        self._draw(data, camera, self._solid, segment=True)
        raw = np.empty(self.size, np.float32)
        mujoco.mjr_readPixels(None, raw, self._box, self._context)
        extent = self.model.stat.extent
        near, far = self.model.vis.map.znear * extent, self.model.vis.map.zfar * extent
        # Reversed z: 1 at the near plane, 0 at the far one, hyperbolic in between.
        z = raw[::-1].astype(np.float64)
        metres = near * far / (near + z * (far - near))
        return np.where(z > 0.0, metres, 0.0).astype(np.float32)

    def seg(self, data: mujoco.MjData, camera: str | mujoco.MjvCamera) -> np.ndarray:
        """Which geom is where: (H, W) int32 index of the geom in the model, -1 where there is none. Errors as `rgb`."""
        self._draw(data, camera, self._solid, segment=True)
        code = self._colours().astype(np.int32)
        code = code[..., 0] + (code[..., 1] << 8) + (code[..., 2] << 16)
        index = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                index[geom.segid + 1] = geom.objid
        return index[code]

    def renew_textures(self, model: mujoco.MjModel) -> None:
        """Take over textures of a model, this renderer's or a twin, that have changed; the sky does not."""
        self._gl.make_current()
        for texture in np.flatnonzero(model.tex_type != mujoco.mjtTexture.mjTEXTURE_SKYBOX):
            mujoco.mjr_uploadTexture(model, self._context, int(texture))

    def _colours(self) -> np.ndarray:
        height, width = self.size
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._box, self._context)
        return pixels[::-1].copy()  # OpenGL's first row is the lowest

    def _draw(
        self, data: mujoco.MjData, camera: str | mujoco.MjvCamera, option: mujoco.MjvOption, segment: bool
    ) -> None:
        if self._context is None:
            raise RenderError("this renderer is closed; make a new one")
        if isinstance(camera, str):
            camera = self.camera(camera)
        scene = self._scene
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segment
        mujoco.mjv_updateScene(data.model, data, option, None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        self._gl.make_current()
        mujoco.mjr_render(self._box, scene, self._context)

    def close(self) -> None:
        """Free everything; safe to call twice."""
        # Freeing needs this renderer's own context to be the current one: else it would delete
        # buffers of the same numbers in whichever context is, and spoil that renderer's pictures.
        gl, context, self._gl, self._context = self._gl, self._context, None, None
        if context is not None:
            gl.make_current()
            context.free()
        if gl is not None:
            gl.free()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
