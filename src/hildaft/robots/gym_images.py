"""Images of a Gymnasium environment as the backbones want them: RGB, uint8, square, of one size."""

import os
from collections.abc import Mapping
from typing import Any, Final, cast, final

import gymnasium
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from hildaft.robots.gym_config import GymCamera
from hildaft.types import HilDaftError

IMAGE_SIZE: Final = 128
"""Side in px that every camera is resized to."""
_CHANNELS: Final = (1, 3, 4)


def look_up(values: object, path: str, what: str) -> Any:  # noqa: ANN401 - whatever the environment put there
    """The value at `a/b` in nested mappings; the whole where the path is empty.

    Raises:
        HilDaftError: there is no such key; the keys that are there are listed.
    """
    found = values
    for part in path.split("/") if path else []:
        if not isinstance(found, Mapping) or part not in found:
            keys = sorted(map(str, found)) if isinstance(found, Mapping) else []
            there = ", ".join(keys) if keys else f"a {type(found).__name__} without keys"
            msg = f"environment: {what} has no {path!r}; found {there}"
            raise HilDaftError(msg)
        found = cast(Mapping[str, Any], found)[part]
    return found


@final
class GymCameras:
    """Takes the views of one environment."""

    def __init__(
        self, env: gymnasium.Env[Any, Any], cameras: Mapping[str, GymCamera], *, shadows: bool
    ) -> None:
        self._env, self._cameras = env, cameras
        self._offscreen: Any = None
        model: Any = getattr(env.unwrapped, "model", None)
        if hasattr(model, "light_castshadow"):
            from hildaft.robots.bolt_sim.gl import choose_gl

            # The environment's own viewer would try a window first.
            os.environ.setdefault("MUJOCO_GL", choose_gl())
            if not shadows:
                model.light_castshadow[:] = 0
                model.vis.quality.offsamples = 0

    def take(self, observation: object) -> dict[str, UInt8[np.ndarray, "128 128 3"]]:
        """All views, by camera name.

        Raises:
            HilDaftError: a view is missing, or is no image.
        """
        raw: dict[GymCamera, Any] = {}
        # The environment's own render goes first: some move their goal marker only there.
        for camera in sorted(self._cameras.values(), key=lambda c: c.source != "render"):
            if camera not in raw:
                raw[camera] = self._raw(camera, observation)
        return {name: to_view(raw[camera], camera, name) for name, camera in self._cameras.items()}

    def _raw(self, camera: GymCamera, observation: object) -> Any:  # noqa: ANN401 - checked by to_view
        match camera.source:
            case "observation":
                return look_up(observation, camera.key, "the observation")
            case "render":
                # Gymnasium's MuJoCo viewer draws into whatever context is current.
                own = getattr(self._env.unwrapped, "mujoco_renderer", None)
                viewer = getattr(own, "viewer", None)
                if viewer is not None and hasattr(viewer, "make_context_current"):
                    viewer.make_context_current()
                return self._env.render()
            case "mujoco":
                return self._named(camera.key)

    def _named(self, camera: str) -> Any:  # noqa: ANN401 - checked by to_view
        unwrapped: Any = self._env.unwrapped
        model: Any = getattr(unwrapped, "model", None)
        data: Any = getattr(unwrapped, "data", None)
        if data is None or not hasattr(model, "ncam"):
            msg = f"environment.cameras: camera {camera!r} has source 'mujoco', but this is no MuJoCo environment"
            raise HilDaftError(msg)
        names = [model.camera(i).name for i in range(model.ncam)]
        if camera not in names:
            msg = f"environment.cameras: no MuJoCo camera {camera!r}; found {', '.join(names) or 'none'}"
            raise HilDaftError(msg)
        if self._offscreen is None:
            from hildaft.robots.bolt_sim.gl import Offscreen

            self._offscreen = Offscreen(model, IMAGE_SIZE)
        return self._offscreen.render(data, names.index(camera), IMAGE_SIZE)

    def close(self) -> None:
        """Frees the GL context."""
        if self._offscreen is not None:
            self._offscreen.close()
            self._offscreen = None


def to_view(
    raw: Shaped[np.ndarray, "..."] | object, camera: GymCamera, name: str
) -> UInt8[np.ndarray, "128 128 3"]:
    """One view from whatever the environment gives: channels first or last, uint8 or floats in [0, 1], grey or RGBA.

    The larger side is cut to the smaller, centred, unless `crop` says what to keep.

    Raises:
        HilDaftError: it is no image.
    """
    image = np.asarray(raw)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim == 3 and image.shape[2] not in _CHANNELS and image.shape[0] in _CHANNELS:
        image = np.moveaxis(image, 0, 2)
    if image.ndim != 3 or image.shape[2] not in _CHANNELS:
        msg = (
            f"environment.cameras.{name}: an array of shape {image.shape} is no image; "
            "height x width x 3 or 3 x height x width is allowed (one frame, not a stack)"
        )
        raise HilDaftError(msg)
    if np.issubdtype(image.dtype, np.floating):
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):
            msg = (
                f"environment.cameras.{name}: floats from {low:.3g} to {high:.3g};"
                " uint8 or floats in [0, 1] are allowed"
            )
            raise HilDaftError(msg)
        image = np.rint(255.0 * image)
    elif image.dtype != np.uint8:
        msg = (
            f"environment.cameras.{name}: type {image.dtype}; uint8 or floats in [0, 1] are allowed"
        )
        raise HilDaftError(msg)
    image = image.astype(np.uint8)[:, :, :3]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    image = _flip(_cut(image, camera, name), camera.flip)
    if image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
        return np.ascontiguousarray(image)
    # Averages over the pixels it drops, so that a small object does not vanish.
    scaled = Image.fromarray(image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    return np.asarray(scaled)


def _cut(
    image: UInt8[np.ndarray, "h w 3"], camera: GymCamera, name: str
) -> UInt8[np.ndarray, "h2 w2 3"]:
    height, width = image.shape[:2]
    if camera.crop is None:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return image[top : top + side, left : left + side]
    top, left, tall, wide = camera.crop
    if top + tall > height or left + wide > width:
        msg = (
            f"environment.cameras.{name}.crop={camera.crop}: does not fit into {height}x{width} px"
        )
        raise HilDaftError(msg)
    return image[top : top + tall, left : left + wide]


def _flip(image: UInt8[np.ndarray, "h w 3"], flip: str) -> UInt8[np.ndarray, "h w 3"]:
    if flip in ("vertical", "both"):
        image = image[::-1]
    if flip in ("horizontal", "both"):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
