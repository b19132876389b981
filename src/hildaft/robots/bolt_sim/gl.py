"""Off-screen rendering: EGL first, OSMesa second, one context for all cameras of a scene."""

import ctypes
import importlib
import os
import weakref
from typing import Any, Final, TypeAlias, final

import numpy as np
from jaxtyping import UInt8

from hildaft.types import HilDaftError

# llvmpipe then rasterises in the calling thread: two environments do not fight for the same cores.
os.environ.setdefault("LP_NUM_THREADS", "0")

INSTALL_HINT: Final = (
    "install libegl1 libopengl0 libgl1-mesa-dri (EGL), or libosmesa6 and set MUJOCO_GL=osmesa"
)

MjModel: TypeAlias = Any
MjData: TypeAlias = Any
# mujoco's compiled classes carry no types for a checker.

try:
    mujoco: Any = importlib.import_module("mujoco")
except (ImportError, AttributeError, OSError, RuntimeError) as error:
    # With MUJOCO_GL set and its library missing, importing mujoco itself fails.
    gl_name = os.environ.get("MUJOCO_GL", "unset")
    message = (
        f"simulation: mujoco cannot be imported with MUJOCO_GL={gl_name} ({error}): {INSTALL_HINT}"
    )
    raise HilDaftError(message) from error


def _loads(*names: str) -> bool:
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def choose_gl() -> str:
    """Names the GL to use: MUJOCO_GL where set to egl or osmesa, else the first whose libraries load.

    Raises:
        HilDaftError: no GL library is there; the line says which packages to install.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    if asked in ("egl", "osmesa"):
        return asked
    if _loads("libEGL.so.1") and _loads("libOpenGL.so.0", "libGL.so.1"):
        return "egl"
    if _loads("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        return "osmesa"
    msg = f"simulation: no OpenGL library for off-screen rendering was found: {INSTALL_HINT}"
    raise HilDaftError(msg)


def _create_context(size: int) -> Any:  # noqa: ANN401 - mujoco's GLContext has no common type
    name = choose_gl()
    try:
        if name == "egl":
            from mujoco.egl import GLContext
        else:
            from mujoco.osmesa import GLContext
        context = GLContext(size, size)
        context.make_current()
    except Exception as error:  # PyOpenGL raises many kinds; the user needs one line.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"simulation: MUJOCO_GL={name} cannot render ({reason}): {INSTALL_HINT}"
        raise HilDaftError(msg) from error
    return context


@final
class Offscreen:
    """Renders square RGB images of a model's fixed cameras; shadows and reflections off."""

    def __init__(self, model: MjModel, max_size: int) -> None:
        self._model = model
        self._context: Any = _create_context(max_size)
        self._scene = mujoco.MjvScene(model=model, maxgeom=300)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
        self._render = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_100))
        # MjrContext frees its GL objects in whatever context is current then: an environment dropped without
        # `close` would free another one's.
        self._release = weakref.finalize(self, _free, self._context, self._render)
        # At the end of the process the display may be gone first; the driver frees everything then.
        self._release.atexit = False
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._render)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
            mujoco.mjtRndFlag.mjRND_FOG,
            mujoco.mjtRndFlag.mjRND_HAZE,
        ):
            self._scene.flags[flag] = False

    def render(self, data: MjData, camera: int, size: int) -> UInt8[np.ndarray, "s s 3"]:
        """Returns one new image, row 0 at the top."""
        self._camera.fixedcamid = camera
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            None,
            self._camera,
            int(mujoco.mjtCatBit.mjCAT_ALL),
            self._scene,
        )
        image = np.empty((size, size, 3), dtype=np.uint8)
        rect = mujoco.MjrRect(0, 0, size, size)
        # Last, so that no garbage collection comes between it and the drawing.
        self._context.make_current()
        mujoco.mjr_render(rect, self._scene, self._render)
        mujoco.mjr_readPixels(image, None, rect, self._render)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Frees the GL context; safe to call more than once."""
        self._release()


def _free(context: Any, render: Any) -> None:  # noqa: ANN401 - see `_create_context`
    context.make_current()
    render.free()
    context.free()
