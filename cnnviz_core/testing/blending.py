"""The part of the conformance kit that is about batches which are described, not made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from cnnviz_core.blended import BLEND, Blended
from cnnviz_core.errors import ArrayError
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, MaskForm, Separable
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, Model, input_node
from cnnviz_core.netspec import NetSpec
from cnnviz_core.testing.comparing import assert_close
from cnnviz_core.testing.nets import NETS, random_input

__all__ = ["BlendConformance", "described", "hard_forms", "soft_forms"]

_N = 5


def soft_forms(size: tuple[int, ...]) -> dict[str, MaskForm]:
    """Describe masks in every way there is.

    Parameters
    ----------
    size : tuple of int
        A sample's positions along each axis.

    Returns
    -------
    dict of str to MaskForm
        Five masks of each kind, by what describes them; of samples without positions, those that
        need none.
    """
    rng = np.random.default_rng(7)
    grid = tuple(max(1, extent // 3) for extent in size)
    grids = rng.random((_N, *grid)) - 0.2
    shared = [rng.random((g, extent)) for g, extent in zip(grid, size, strict=True)]
    own = [rng.random((_N, g, extent)) for g, extent in zip(grid, size, strict=True)]
    forms: dict[str, MaskForm] = {"drawn": Drawn(rng.random((_N, *size)))}
    forms["labelled"] = Labelled(rng.integers(0, 4, size), rng.random((_N, 4)))
    forms["affine"] = Affine(forms["labelled"], -0.5, rng.random(size))
    if size:
        forms["separable"] = Separable(grids, shared)
        forms["separable, each its own"] = Separable(grids, own)
        forms["stretched"] = Separable(grids, shared, stretch=True)
        forms["affine, of grids"] = Affine(forms["stretched"], 0.5, 0.25)
    return forms


def hard_forms(size: tuple[int, ...]) -> dict[str, MaskForm]:
    """Describe masks of zeros and ones; the first of each is all ones, the second all zeros.

    Parameters
    ----------
    size : tuple of int
        A sample's positions along each axis.

    Returns
    -------
    dict of str to MaskForm
        Five masks of each kind, by what describes them.
    """
    rng = np.random.default_rng(8)
    kept = rng.integers(0, 2, (_N, 4)).astype(bool)
    kept[0], kept[1] = True, False
    labels = rng.integers(0, 4, size)
    forms: dict[str, MaskForm] = {
        "drawn": Drawn(kept[:, labels]),
        "labelled": Labelled(labels, kept),
    }
    forms["affine"] = Affine(Labelled(labels, ~kept), -1.0, 1.0)
    if size:
        nearest = [(np.arange(extent) * 2 // extent == [[0], [1]]) * 1.0 for extent in size]
        grids = rng.integers(0, 2, (_N, *(2 for _ in size)))
        grids[0], grids[1] = 1, 0
        forms["separable"] = Separable(grids, nearest)
    return forms


def described(sample: Array, form: MaskForm, fill: Any) -> Array:
    """Describe a batch, as explainers pass it to a model that offers "blend".

    Parameters
    ----------
    sample : ndarray (*size, C)
        The sample.
    form : MaskForm
        The masks.
    fill : ndarray
        What is shown where a mask is 0.

    Returns
    -------
    Blended
        To a type checker it is an array, as it is to such a model.
    """
    return cast(Array, Blended(sample, form, np.asarray(fill, sample.dtype)))


class BlendConformance:
    """What every backend must do that offers "blend".

    Attributes
    ----------
    capabilities : frozenset of str
        What the backend offers for networks of its own.
    rtol : float
        The largest difference between a batch that is made and one that is described.
    """

    capabilities: ClassVar[frozenset[str]]
    rtol: ClassVar[float]

    def build(self, net: NetSpec) -> Model:
        """Build the network in the framework, in inference mode, and wrap it."""
        raise NotImplementedError

    def _blending(self, name: str) -> tuple[Model, str, dict[str, Array]]:
        """Give a network in the framework, the name of an input, and a sample for each."""
        net = NETS[name]()
        x = random_input(net, 1, seed=9)
        model = self.build(net)
        if BLEND not in self.capabilities | model.capabilities:
            pytest.skip("the backend does not offer blend")
        return model, next(iter(x)), x

    @pytest.mark.parametrize("name", NETS)
    def test_a_described_batch_is_the_batch(self, name: str) -> None:
        """Whatever describes the masks, and whatever is shown in the sample's place."""
        model, free, x = self._blending(name)
        sample = x[free][0]
        for what, form in soft_forms(sample.shape[:-1]).items():
            for fill in (0.5, sample.mean(tuple(range(sample.ndim - 1))), sample[::-1] * 2):
                batch = described(sample, form, fill)
                made = np.asarray(batch)
                node = input_node(free)
                actual = model.forward(_beside(x, free, batch), capture=[node])
                expected = model.forward(_beside(x, free, made))
                assert isinstance(actual[node], np.ndarray)
                assert_close(actual[node], made, 1e-5, f"{what}: the input")
                for node in (LOGITS, OUTPUT):
                    assert_close(actual[node], expected[node], self.rtol, f"{what}: {node}")

    @pytest.mark.parametrize("name", ["plain", "signal", "volume", "two_inputs"])
    def test_masks_of_zeros_and_ones_select(self, name: str) -> None:
        """What they keep is exactly the sample, what they take away exactly the fill."""
        model, free, x = self._blending(name)
        sample = x[free][0]
        for what, form in hard_forms(sample.shape[:-1]).items():
            for fill in (np.float32(1 / 3), np.cos(sample)):
                batch = described(sample, form, fill)
                made = np.asarray(batch)
                np.testing.assert_array_equal(made[0], sample)
                np.testing.assert_array_equal(made[1], np.broadcast_to(fill, sample.shape))
                actual = model.forward(_beside(x, free, batch))
                expected = model.forward(_beside(x, free, made))
                np.testing.assert_array_equal(actual.logits, expected.logits, what)

    def test_a_described_batch_can_be_looked_at(self) -> None:
        """Values are captured and replaced as they are for any other batch."""
        if missing := {"capture", "replace"} - self.capabilities:
            pytest.skip(f"the backend does not offer {', '.join(sorted(missing))}")
        model, free, x = self._blending("plain")
        form = soft_forms(x[free].shape[1:-1])["separable"]
        batch = described(x[free][0], form, 0)
        swap = {"relu1": np.cos}
        actual = model.forward(batch, capture=["conv2", INPUT], replace=swap)
        expected = model.forward(np.asarray(batch), capture=["conv2", INPUT], replace=swap)
        for node, value in expected.values.items():
            assert_close(actual[node], value, self.rtol, node)

    def test_a_bad_description_is_refused(self) -> None:
        """With the errors that arrays of these numbers would give."""
        model, free, x = self._blending("plain")
        good = cast(Blended, described(x[free][0], Drawn(np.ones((2, *x[free].shape[1:-1]))), 0))
        masks = np.ones(good.masks.shape)
        nan = good.sample * np.nan
        for bad in (
            replace(good, sample=nan),
            replace(good, fill=nan),
            replace(good, masks=Drawn(masks * np.inf)),
            replace(good, masks=Affine(Drawn(masks), np.nan)),
            replace(good, masks=Drawn(masks[:, 1:])),
            replace(good, masks=Drawn(masks[:0])),
            replace(good, masks=Drawn(masks.astype(str))),
            replace(good, sample=good.sample[..., :2]),
            replace(good, fill=good.sample[..., :2]),
        ):
            with pytest.raises(ArrayError):
                model.forward(cast(Array, bad))


def _beside(x: dict[str, Array], free: str, batch: Array) -> Any:
    """Put a batch into one input, and the same sample for each of its own into the others."""
    if len(x) == 1:
        return batch
    rest = {name: np.repeat(array, len(batch), 0) for name, array in x.items()}
    return {**rest, free: batch}
