"""What a picture is made of: pixels or waves, in colours that photographs do not correlate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

from cnnviz_core.model import Array

__all__ = ["COLOURS", "Fourier", "Parameterisation", "Pixels", "parameterisation"]

# The principal axes of the colours of photographs, each as long as their standard deviation along
# it: bright - dark, yellow - blue, magenta - green.  Computed for this project from the red, green
# and blue (0..1, as stored) of every third pixel in both directions of 1205 photographs, 205 of
# COCO 2017 and 1000 of ILSVRC 2012 validation, every photograph counting alike: the eigenvectors of
# their covariance times the square roots of its eigenvalues, so that COLOURS @ COLOURS.T is the
# covariance.
COLOURS: Final = np.array(
    [
        [0.2561, 0.0947, 0.0276],
        [0.2653, 0.0023, -0.0542],
        [0.2698, -0.0922, 0.0270],
    ]
)
"""Red, green and blue (rows) of the three uncorrelated colours (columns) of photographs."""
COLOURS.flags.writeable = False

_NEAREST: Final = 1e-3
"""How near a bounded colour of a given picture may come to black and white."""


class Parameterisation(Protocol):
    """A way of making pictures of parameters: ``colours = f(parameters)``, with the adjoint of f'.

    The type of the parameters, float32 or float64, is that of all that is made of them.

    Attributes
    ----------
    shape : tuple of int
        (H, W, K) of a picture, with K colours.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, K) of a picture."""
        ...

    def noise(self, rng: np.random.Generator, n: int, size: float, dtype: str) -> Array:
        """Draw the parameters of pictures that are a slightly uneven grey.

        Parameters
        ----------
        rng : numpy.random.Generator
            The first pictures drawn from it do not depend on how many follow.
        n : int
            How many.
        size : float
            Standard deviation of the parameters; 0 for plain grey.
        dtype : str
            "float32" or "float64".

        Returns
        -------
        ndarray (n, ...)
        """
        ...

    def parameters(self, colours: Array) -> Array:
        """Find the parameters of given pictures.

        Parameters
        ----------
        colours : ndarray (N, H, W, K)
            In [0, 1]; where the pictures are bounded, black and white become nearly so.

        Returns
        -------
        ndarray (N, ...)
        """
        ...

    def value(self, parameters: Array) -> Array:
        """Make the pictures.

        Parameters
        ----------
        parameters : ndarray (N, ...)

        Returns
        -------
        ndarray (N, H, W, K)
            Colours, in [0, 1] where they are bounded.
        """
        ...

    def pulled(self, parameters: Array, gradient: Array) -> Array:
        """Bring a gradient by the colours to one by the parameters.

        Parameters
        ----------
        parameters : ndarray (N, ...)
            Where it is taken.
        gradient : ndarray (N, H, W, K)
            Of a score, by the colours.

        Returns
        -------
        ndarray (N, ...)
            Of the parameters' shape and type.
        """
        ...


@dataclass(frozen=True)
class _Coloured:
    """What pixels and waves have in common: from three free numbers a pixel to a colour.

    Attributes
    ----------
    shape : tuple of int
        (H, W, K) of a picture.
    decorrelate : bool
        Whether the numbers of a pixel are amounts of `COLOURS` (scaled so that the longest has the
        length 1) rather than of red, green and blue; without effect unless K is 3.
    bounded : bool
        Whether a sigmoid keeps the colours in [0, 1]; otherwise they are the numbers plus 1/2.
    """

    shape: tuple[int, int, int]
    decorrelate: bool = True
    bounded: bool = True

    def _matrix(self, dtype: np.dtype[np.floating]) -> Array:
        """Give what makes colours of numbers."""
        k = self.shape[2]
        if not self.decorrelate or k != 3:
            return np.eye(k, dtype=dtype)
        return (COLOURS / np.linalg.norm(COLOURS, axis=0).max()).astype(dtype)

    def _coloured(self, numbers: Array) -> Array:
        from scipy.special import expit

        mixed = numbers @ self._matrix(numbers.dtype).T
        return expit(mixed) if self.bounded else mixed + numbers.dtype.type(0.5)

    def _numbers(self, colours: Array) -> Array:
        from scipy.special import logit

        if self.bounded:
            mixed = logit(np.clip(colours, _NEAREST, 1 - _NEAREST))
        else:
            mixed = colours - colours.dtype.type(0.5)
        return mixed @ np.linalg.inv(self._matrix(colours.dtype)).T

    def _uncoloured(self, numbers: Array, gradient: Array) -> Array:
        """Bring a gradient by the colours to one by the numbers."""
        if self.bounded:
            colours = self._coloured(numbers)
            gradient = gradient * colours * (1 - colours)
        return gradient @ self._matrix(numbers.dtype)


@dataclass(frozen=True)
class Pixels(_Coloured):
    """A picture whose parameters are its pixels, (N, H, W, K).

    Attributes
    ----------
    shape : tuple of int
        (H, W, K) of a picture.
    decorrelate : bool
        Whether the parameters of a pixel are amounts of `COLOURS` rather than of red, green, blue.
    bounded : bool
        Whether a sigmoid keeps the colours in [0, 1]; otherwise they are the amounts plus 1/2.
    """

    def noise(self, rng: np.random.Generator, n: int, size: float, dtype: str) -> Array:
        """Draw parameters; see `Parameterisation.noise`."""
        return (size * rng.normal(size=(n, *self.shape))).astype(dtype)

    def parameters(self, colours: Array) -> Array:
        """Find the parameters of given pictures."""
        return self._numbers(colours)

    def value(self, parameters: Array) -> Array:
        """Make the pictures."""
        return self._coloured(parameters)

    def pulled(self, parameters: Array, gradient: Array) -> Array:
        """Bring a gradient by the colours to one by the parameters."""
        return self._uncoloured(parameters, gradient)


@dataclass(frozen=True)
class Fourier(_Coloured):
    """A picture whose parameters are the amplitudes of waves, (N, H, W // 2 + 1, K, 2).

    The last axis holds real and imaginary parts of the half spectrum of a real picture.  A wave of
    the frequency f, in periods a pixel, counts ``gain / max(f, 1 / max(H, W))^decay`` times: as in
    photographs, whose amplitudes fall as 1/f, coarse shapes change more in one step of an optimiser
    than fine ones.

    Attributes
    ----------
    shape : tuple of int
        (H, W, K) of a picture.
    decorrelate : bool
        Whether the waves are of `COLOURS` rather than of red, green, blue.
    bounded : bool
        Whether a sigmoid keeps the colours in [0, 1]; otherwise they are the sums of waves plus
        1/2.
    decay : float
        The power of the frequency; 0 makes all waves alike.
    gain : float
        The size of all waves.

    References
    ----------
    Olah et al., "Feature visualization", Distill 2017, "Preconditioning and parameterization".
    """

    decay: float = 1.0
    gain: float = 0.25

    def _scale(self, dtype: np.dtype[np.floating]) -> Array:
        """Give what each wave counts, (H, W // 2 + 1, 1)."""
        h, w, _ = self.shape
        frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :])
        scale = self.gain / np.maximum(frequency, 1 / max(h, w)) ** self.decay
        return scale[..., None].astype(dtype)

    def _waves(self, parameters: Array) -> Array:
        """Sum the waves, (N, H, W, K)."""
        from scipy import fft

        spectrum = (parameters[..., 0] + 1j * parameters[..., 1]) * self._scale(parameters.dtype)
        return fft.irfft2(spectrum, self.shape[:2], axes=(1, 2), norm="ortho")

    def noise(self, rng: np.random.Generator, n: int, size: float, dtype: str) -> Array:
        """Draw parameters; see `Parameterisation.noise`."""
        h, w, k = self.shape
        return (size * rng.normal(size=(n, h, w // 2 + 1, k, 2))).astype(dtype)

    def parameters(self, colours: Array) -> Array:
        """Find the parameters of given pictures."""
        from scipy import fft

        spectrum = fft.rfft2(self._numbers(colours), axes=(1, 2), norm="ortho")
        spectrum = spectrum / self._scale(colours.dtype)
        return np.stack([spectrum.real, spectrum.imag], -1)

    def value(self, parameters: Array) -> Array:
        """Make the pictures."""
        return self._coloured(self._waves(parameters))

    def pulled(self, parameters: Array, gradient: Array) -> Array:
        """Bring a gradient by the colours to one by the parameters."""
        from scipy import fft

        by_numbers = self._uncoloured(self._waves(parameters), gradient)
        spectrum = fft.rfft2(by_numbers, axes=(1, 2), norm="ortho") * self._scale(gradient.dtype)
        # All columns but the first, and the last of an even width, stand for two waves.
        w = self.shape[1]
        spectrum[:, :, 1 : (w + 1) // 2] *= 2
        return np.stack([spectrum.real, spectrum.imag], -1)


def parameterisation(
    kind: Literal["fourier", "pixel"],
    shape: tuple[int, int, int],
    *,
    decorrelate: bool = True,
    bounded: bool = True,
) -> Parameterisation:
    """Make a parameterisation by its name.

    Parameters
    ----------
    kind : {"fourier", "pixel"}
        Waves or pixels.
    shape : tuple of int
        (H, W, K) of a picture.
    decorrelate : bool
        Whether colours are amounts of `COLOURS`.
    bounded : bool
        Whether a sigmoid keeps the colours in [0, 1].

    Returns
    -------
    Parameterisation
    """
    made = Fourier if kind == "fourier" else Pixels
    return made(shape, decorrelate, bounded)
