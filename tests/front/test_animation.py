"""Animations: GIFs read back, and what is handed to the program that writes MP4."""

from __future__ import annotations

import io
import json
import shutil
import sys

import numpy as np
import pytest
from front.shown import inspection, pixels
from PIL import Image

from cnnviz.animation import encode_gif, encode_mp4
from cnnviz_core.errors import MissingBackendError, ParameterError


def moving(n=10, height=40, width=60):
    """A gradient on which a square moves."""
    ground = np.linspace(0, 255, width)[None, :, None] * np.array([1, 0.5, 0.2])
    frames = []
    for k in range(n):
        frame = np.broadcast_to(ground, (height, width, 3)).astype(np.uint8)
        frame[5:15, 4 * k : 4 * k + 10] = (20, 220, 90)
        frames.append(frame)
    return frames


def read(content):
    """Read a GIF back: its frames, and for how long each is shown."""
    with Image.open(io.BytesIO(content)) as image:
        frames, durations = [], []
        for k in range(image.n_frames):
            image.seek(k)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
        return frames, durations, image.info["loop"]


def test_a_gif_has_the_frames_and_goes_on_and_on():
    frames, durations, loop = read(encode_gif(moving(), fps=10))
    assert len(frames) == 10
    assert durations == [100] * 9 + [1500]
    assert loop == 0
    for shown, given in zip(frames, moving(), strict=True):
        assert np.abs(shown.astype(int) - given).mean() < 4


def test_frames_of_few_colours_are_exact():
    given = [np.kron(pixels(3, 4, seed), np.ones((8, 8, 1), np.uint8)) for seed in range(4)]
    frames, _, _ = read(encode_gif(given))
    assert all(np.array_equal(a, b) for a, b in zip(frames, given, strict=True))


def test_one_frame_is_an_animation_too():
    frames, _, _ = read(encode_gif(moving(1)))
    assert len(frames) == 1


@pytest.mark.parametrize("encode", [encode_gif, encode_mp4])
def test_what_cannot_move_is_refused(encode):
    with pytest.raises(ParameterError, match="no animation"):
        encode([])
    with pytest.raises(ParameterError, match="of the sizes"):
        encode([pixels(4, 4), pixels(4, 5)])
    for fps in (0, 51, float("nan")):
        with pytest.raises(ParameterError, match="fps"):
            encode(moving(2), fps=fps)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A stand-in for ffmpeg, which writes what it was given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "ffmpeg"
    file.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "content = sys.stdin.buffer.read()\n"
        "told = {'options': sys.argv[1:-1], 'first': list(content[:3]), 'bytes': len(content)}\n"
        "open(sys.argv[-1], 'w').write(json.dumps(told))\n"
    )
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    return file


def test_the_writer_of_mp4_is_given_even_sizes_and_all_frames(program):
    told = json.loads(encode_mp4(moving(7, 41, 63), fps=24))
    options = " ".join(told["options"])
    assert "-s 62x40" in options
    assert "-r 24" in options
    assert "yuv420p" in options
    assert told["bytes"] == 7 * 62 * 40 * 3
    assert told["first"] == moving(1, 41, 63)[0][0, 0].tolist()


def test_a_writer_that_fails_leaves_no_file(program, tmp_path):
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no encoder libx264')\n")
    with pytest.raises(MissingBackendError, match="no encoder libx264") as caught:
        inspection(frames=moving()).save(tmp_path / "a.mp4")
    assert "cnnviz[video]" in str(caught.value)
    assert list(tmp_path.glob("*.mp4")) == []


def test_without_a_writer_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingBackendError, match="no ffmpeg is installed") as caught:
        inspection(frames=moving()).save(tmp_path / "a.mp4")
    assert "cnnviz[video]" in str(caught.value)
    assert ".gif" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def has_writer():
    try:
        import imageio_ffmpeg
    except ImportError:
        return shutil.which("ffmpeg") is not None
    return bool(imageio_ffmpeg.get_ffmpeg_exe())


@pytest.mark.skipif(not has_writer(), reason="no ffmpeg is installed")
def test_an_mp4_has_the_frames(tmp_path):
    cv2 = pytest.importorskip("cv2")
    inspection(frames=moving(12, 65, 81)).save(tmp_path / "a.mp4", fps=10)
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 10
    frames = []
    while (got := video.read())[0]:
        frames.append(got[1][..., ::-1])
    assert len(frames) == 12
    for shown, given in zip(frames, moving(12, 65, 81), strict=True):
        assert np.abs(shown.astype(int) - given[:64, :80]).mean() < 6
