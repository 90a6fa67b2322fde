"""Point clouds from the cameras of a scene, by Open3D: pictures of several cameras as one cloud of coloured points.

    env = make("pick_and_place", cameras=("front", "left"), images=("rgb", "depth", "seg"), size=(240, 320))
    obs, _ = env.reset(seed=0)
    cloud = point_cloud(env, obs, box=((0.2, -0.4, -0.01), (0.8, 0.4, 0.5)), bodies=("cube",))

Frames: a camera's own frame is that of computer vision, x to the right, y down, z ahead; points are in the frame of the
robot's base. Open3D is the extra ``pointcloud`` and is imported when a cloud is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np

from robo.core.errors import ConfigError, MissingDependencyError, TaskError, UnknownNameError
from sim.render import camera_index, frame_size
from tasks.arm import SceneTask

if TYPE_CHECKING:
    from hardware.robots import Robot

Corner = Sequence[float] | np.ndarray
"""A point (3,) [m]."""

VOXEL_M = 0.004
"""Edge of the cubes within which points become one, by default."""
_NEIGHBOURS = 30
"""A normal is that of the plane through at most so many points around."""
_FLIP = np.diag([1.0, -1.0, -1.0])
"""MuJoCo's cameras look along -z with y up."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points that cameras see, N of them.

    Attributes:
        points: (N, 3) float64 [m], in the frame of the robot's base.
        colours: (N, 3) uint8.
        normals: (N, 3) float64, of length 1, towards the camera that sees the point; None where not asked for.
    """

    points: np.ndarray
    colours: np.ndarray
    normals: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """What one camera sees, and from where; of a simulated camera or a real one.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32 [m] along the optical axis; 0 where nothing is measured.
        intrinsics: (3, 3), see `intrinsics`.
        extrinsics: (4, 4), see `extrinsics`.
    """

    rgb: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    extrinsics: np.ndarray


def intrinsics(model: mujoco.MjModel, camera: str, size: int | tuple[int, int]) -> np.ndarray:
    """Camera matrix (3, 3) [pixels]: focal lengths and centre, the middle of the first pixel being (0, 0).

    Args:
        model: The scene.
        camera: Name of a camera.
        size: Height and width of its pictures, or one number for both [pixels].

    Raises:
        UnknownNameError: No such camera.
    """
    height, width = frame_size(size)
    focal = height / 2 / np.tan(np.radians(model.cam_fovy[camera_index(model, camera)]) / 2)
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def extrinsics(model: mujoco.MjModel, data: mujoco.MjData, camera: str, robot: Robot) -> np.ndarray:
    """Pose (4, 4) of a camera in the frame of the robot's base: a point of the camera's frame → one of the base's.

    Args:
        model: The scene.
        data: Its state, with positions up to date.
        camera: Name of a camera.
        robot: The arm.

    Raises:
        UnknownNameError: No such camera.
    """
    index, base = camera_index(model, camera), base_body(model, robot)
    turn, pose = data.xmat[base].reshape(3, 3), np.eye(4)
    pose[:3, :3] = turn.T @ data.cam_xmat[index].reshape(3, 3) @ _FLIP
    pose[:3, 3] = turn.T @ (data.cam_xpos[index] - data.xpos[base])
    return pose


def base_body(model: mujoco.MjModel, robot: Robot) -> int:
    """Index of the body that is the robot's base: the outermost one above its first joint."""
    return int(model.body_rootid[model.jnt_bodyid[model.joint(robot.joints[0]).id]])


def shots(env: gymnasium.Env, pictures: Mapping[str, np.ndarray], bodies: Sequence[str] = ()) -> list[Shot]:
    """What the cameras of an environment see now. Marks, such as regions, colour what lies behind them.

    Args:
        env: An environment of an arm in a scene, or a wrapper around one.
        pictures: Its pictures, such as its newest observation: ``rgb_<camera>``, ``depth_<camera>`` of every camera;
            ``seg_<camera>`` where `bodies` are named.
        bodies: Only what belongs to these bodies is kept, each with all that hangs on it; none: everything.

    Raises:
        ConfigError: Pictures are missing.
        UnknownNameError: No such body.
        TaskError: The environment has no scene.
    """
    inner: Any = env.unwrapped
    if not isinstance(inner.task, SceneTask):
        raise TaskError(f"task {inner.task.name} has no scene to take a point cloud of; pick_and_place has one")
    cameras = [name.removeprefix("depth_") for name in pictures if name.startswith("depth_")]
    kinds = ("rgb", "depth", "seg") if bodies else ("rgb", "depth")
    missing = [f"{kind}_{camera}" for camera in cameras for kind in kinds if f"{kind}_{camera}" not in pictures]
    if missing or not cameras:
        raise ConfigError(
            f"a point cloud needs {', '.join(missing) or 'depth pictures'}; make the environment with "
            f"cameras=('front', ...) and images={kinds}"
        )
    kept = _geoms(inner.model, bodies)
    found = []
    for camera in cameras:
        depth = np.asarray(pictures[f"depth_{camera}"], np.float32)
        if bodies:
            depth = np.where(kept[pictures[f"seg_{camera}"]], depth, np.float32(0.0))
        found.append(
            Shot(
                rgb=pictures[f"rgb_{camera}"],
                depth=depth,
                intrinsics=intrinsics(inner.model, camera, depth.shape),
                extrinsics=extrinsics(inner.model, inner.data, camera, inner.task.robot),
            )
        )
    return found


def fuse(
    shots: Sequence[Shot],
    *,
    box: tuple[Corner, Corner] | None = None,
    voxel_m: float = VOXEL_M,
    normals: bool = False,
) -> Cloud:
    """One cloud of all that several cameras see.

    Args:
        shots: What they see.
        box: Lowest and highest corner of what is kept, (3,) each [m], in the frame of the base; None: everything.
        voxel_m: All points within a cube of this edge become their mean; 0: they stay as they are.
        normals: Whether normals are estimated.

    Raises:
        ConfigError: The box is empty, the voxel negative.
        MissingDependencyError: Open3D is not installed or does not load.
    """
    if not 0.0 <= voxel_m < np.inf:
        raise ConfigError(f"voxel_m must be 0 or more, not {voxel_m}; 0.004 makes one point of every 4 mm")
    low, high = np.array([[-np.inf] * 3, [np.inf] * 3] if box is None else box, float)
    if low.shape != (3,) or not (low < high).all():
        raise ConfigError(f"box is (lowest corner, highest corner), three numbers [m] each, not {box}")
    o3d = load()
    whole = o3d.geometry.PointCloud()
    for shot in shots:
        cloud = _back_project(o3d, shot)
        if box is not None:
            cloud = cloud.crop(o3d.geometry.AxisAlignedBoundingBox(low, high))
        if voxel_m:
            cloud = cloud.voxel_down_sample(voxel_m)
        if normals and len(cloud.points):
            cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(_NEIGHBOURS))
            cloud.orient_normals_towards_camera_location(shot.extrinsics[:3, 3])
        whole += cloud
    if voxel_m and len(shots) > 1:
        whole = whole.voxel_down_sample(voxel_m)
    if normals:
        whole.normalize_normals()
    return Cloud(
        points=np.array(whole.points).reshape(-1, 3),
        colours=np.round(255 * np.array(whole.colors)).astype(np.uint8).reshape(-1, 3),
        normals=np.array(whole.normals).reshape(-1, 3) if normals else None,
    )


def point_cloud(
    env: gymnasium.Env,
    pictures: Mapping[str, np.ndarray],
    *,
    box: tuple[Corner, Corner] | None = None,
    voxel_m: float = VOXEL_M,
    normals: bool = False,
    bodies: Sequence[str] = (),
) -> Cloud:
    """What the cameras of an environment see now as one cloud: `fuse` of `shots`.

    Raises:
        RoboError: As those do.
    """
    return fuse(shots(env, pictures, bodies), box=box, voxel_m=voxel_m, normals=normals)


def load() -> Any:
    """The module ``open3d``.

    Raises:
        MissingDependencyError: It is not installed, or a library of the system that it needs is not.
    """
    try:
        import open3d
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"point clouds need open3d ({error}); install it: pip install -e '.[pointcloud]'"
        ) from error
    except ImportError as error:
        raise MissingDependencyError(f"open3d does not load ({error}); try: apt-get install libusb-1.0-0") from error
    return open3d


def _back_project(o3d: Any, shot: Shot) -> Any:
    """The points of one camera in the frame of the base, as Open3D's cloud."""
    height, width = shot.depth.shape
    (fx, _, cx), (_, fy, cy) = shot.intrinsics[:2]
    pictures = o3d.geometry.RGBDImage.create_from_color_and_depth(
        o3d.geometry.Image(np.ascontiguousarray(shot.rgb)),
        o3d.geometry.Image(np.ascontiguousarray(shot.depth, np.float32)),
        depth_scale=1.0,
        depth_trunc=float(np.inf),
        convert_rgb_to_intensity=False,
    )
    pinhole = o3d.camera.PinholeCameraIntrinsic(width, height, fx, fy, cx, cy)
    return o3d.geometry.PointCloud.create_from_rgbd_image(pictures, pinhole).transform(shot.extrinsics)


def _geoms(model: mujoco.MjModel, bodies: Sequence[str]) -> np.ndarray:
    """Which geoms belong to bodies or what hangs on them, (ngeom + 1,) bool; the last entry is that of no geom."""
    below = np.zeros(model.nbody, bool)
    for name in bodies:
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        if index < 0:
            raise UnknownNameError("body", name, [model.body(i).name for i in range(model.nbody)])
        below[index] = True
    for body in range(1, model.nbody):  # parents come first
        below[body] |= below[model.body_parentid[body]]
    return np.append(below[model.geom_bodyid], False)
