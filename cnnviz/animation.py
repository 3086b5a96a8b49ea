"""Frames as files that move: GIF, and MP4 where a program that writes it is there."""

from __future__ import annotations

import importlib
import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cnnviz_core.errors import MissingBackendError, ParameterError
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FPS", "MOVING", "encode_gif", "encode_mp4"]

FPS: Final = 12.0
"""How many frames a second has."""
MOVING: Final = (".gif", ".mp4")
"""The suffixes of animations."""

_LAST = 1.5
"""For how many seconds a GIF stays at its last frame, which is the result."""


def encode_gif(frames: Sequence[Array], fps: float = FPS) -> bytes:
    """Encode an animation as GIF that goes on and on.

    Parameters
    ----------
    frames : sequence of ndarray (H, W, 3) of uint8
        All of one size.
    fps : float
        Frames a second, at most 50.

    Returns
    -------
    bytes
        A file's content; the last frame is shown longer than the others.

    Raises
    ------
    ParameterError
        If there is no frame, or their sizes differ, or there are too many a second.
    """
    from PIL import Image

    _check(frames, fps)
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    palette = _palette(images)
    quantised = [image.quantize(palette=palette) for image in images]
    # GIF counts hundredths of a second.
    usual = max(20, round(100 / fps) * 10)
    durations = [usual] * (len(images) - 1) + [max(usual, round(_LAST * 100) * 10)]
    buffer = io.BytesIO()
    first, *rest = quantised
    first.save(
        buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, disposal=1
    )
    return buffer.getvalue()


def encode_mp4(frames: Sequence[Array], fps: float = FPS) -> bytes:
    """Encode an animation as MP4 (H.264), as browsers and slides show it.

    Parameters
    ----------
    frames : sequence of ndarray (H, W, 3) of uint8
        All of one size; a side of an odd number of pixels loses the last.
    fps : float
        Frames a second, at most 50.

    Returns
    -------
    bytes
        A file's content.

    Raises
    ------
    ParameterError
        If there is no frame, or their sizes differ, or there are too many a second.
    MissingBackendError
        If there is no ffmpeg, or it cannot write MP4.
    """
    _check(frames, fps)
    program = _ffmpeg()
    height, width = (n - n % 2 for n in frames[0].shape[:2])
    content = b"".join(np.ascontiguousarray(f[:height, :width]).tobytes() for f in frames)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "animation.mp4"
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        codec = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
        command = [program, "-y", "-loglevel", "error", *source, "-r", f"{fps:g}", "-i", "-"]
        done = subprocess.run([*command, *codec, str(file)], input=content, capture_output=True)
        if done.returncode or not file.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise MissingBackendError(
                f"{program} wrote no animation and said: {said[-1]}",
                "an ffmpeg with H.264",
                "pip install 'cnnviz[video]', which brings one, or save it as .gif",
            )
        return file.read_bytes()


def _check(frames: Sequence[Array], fps: float) -> None:
    """Check that there is something to be shown one after the other."""
    sizes = {np.shape(frame) for frame in frames}
    if len(sizes) != 1:
        raise ParameterError(
            f"frames of the sizes {sorted(sizes)} were given" if sizes else "there is no animation",
            "frames of one size" if sizes else "an inspection that gives frames",
            "resize them" if sizes else "ask for frames, where the inspector has such a parameter",
        )
    if not 0 < fps <= 50:
        raise ParameterError(f"fps={fps!r} is out of range", "above 0, at most 50", f"pass {FPS:g}")


def _palette(images: Sequence[Image.Image]) -> Image.Image:
    """Give 256 colours that suit all frames, so that none flickers."""
    from PIL import Image

    step = max(1, len(images) // 16)
    chosen = [*images[::step], images[-1]]
    strip = Image.new("RGB", (images[0].width, images[0].height * len(chosen)))
    for k, image in enumerate(chosen):
        strip.paste(image, (0, k * image.height))
    if strip.width * strip.height > 2_000_000:
        strip = strip.reduce(2)
    return strip.quantize(256, method=Image.Quantize.MEDIANCUT)


def _ffmpeg() -> str:
    """Find the program that writes MP4."""
    try:
        program: str = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
        return program
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise MissingBackendError(
            "an MP4 was asked for, and no ffmpeg is installed",
            "the program ffmpeg, or the package imageio-ffmpeg, which brings one",
            "pip install 'cnnviz[video]', or save it as .gif",
        )
    return found
