"""Class model images: what a network takes a class to look like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.labels import find_class
from cnnviz_core.model import Array
from cnnviz_core.optimisers import Plain
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import ClassScore, Target
from cnnviz_features.synthesis.ascent import Climb
from cnnviz_features.synthesis.objectives import Objective
from cnnviz_features.synthesis.parameterisation import Pixels
from cnnviz_features.synthesis.priors import L2, weighted
from cnnviz_features.synthesis.showing import make
from cnnviz_features.synthesis.transformations import Jitter

__all__ = ["ClassModel"]

_RANGE: Final = re.compile(r"(?P<first>\d+)\s*-\s*(?P<last>\d+)")


@dataclass(frozen=True)
class ClassModel:
    """The picture that scores highest for a class, under an L2 penalty.

    Beginning with the mean picture, plain gradient ascent on the pixels climbs
    ``S_c(I) - lambda |I - mean|^2``, where ``S_c`` is the class's score before the softmax: a
    probability would also grow as the other classes are pressed down.

    Each step goes along the gradient, divided by its root mean square, for the size of gradients
    differs by orders of magnitude between networks.  A random shift before each look and a slight
    blur after each step keep the fine noise down by which newer networks are excited; with
    ``jitter=0, blur=0`` the method is the paper's.

    Parameters
    ----------
    classes : str
        Which classes, separated by semicolons: names, numbers, and ranges such as "0-8".  Only
        looked at where the subject has no target.
    steps : int
        How many steps to take.
    step_size : float
        The root mean square change of a colour in a step; colours are in [0, 1].
    l2 : float
        The weight of the mean squared difference of the colours from the mean picture: ``lambda``
        times the number of a picture's values.
    jitter : float
        How far the picture is shifted at most before each look, as a part of its side.
    blur : float
        The standard deviation, in pixels, of a blur after each step, which leaves fine noise no
        time to grow.
    frames : int
        Every how many steps to keep a frame of the animation; 0 keeps none.
    seed : int
        Of the shifts.

    Notes
    -----
    The mean picture is plain: the colour whose input values are 0, as the preprocessing makes them,
    or middle grey where that is black or no colour at all.  Colours are not bounded on their way;
    they are clipped at the end.

    For N classes the findings have the arrays

    - "pictures" (N, H, W, K): the colours in [0, 1];
    - "scores" (S, N): the class's score before each of the S steps;
    - "reached" (N,): the score of the finished pictures;
    - "probabilities" (N, classes): what the network says of them, where it gives probabilities.

    References
    ----------
    Simonyan et al., "Deep inside convolutional networks: visualising image classification models
    and saliency maps", ICLR workshop 2014, section 2; Yosinski et al., "Understanding neural
    networks through deep visualization", ICML workshop 2015, on blurring.
    """

    classes: Annotated[
        str, Help("names, numbers or ranges, separated by ;, where no target is given")
    ] = "0-8"
    steps: Annotated[int, Range(1), Help("how many steps to take")] = 150
    step_size: Annotated[
        float, Range(0, open_low=True), Help("mean change of a colour in a step")
    ] = 0.03
    l2: Annotated[float, Range(0), Help("weight of the squared distance from the mean")] = 20.0
    jitter: Annotated[
        float, Range(0, 1), Help("most that the picture is shifted, as a part of its side")
    ] = 0.06
    blur: Annotated[float, Range(0), Help("blur after each step, in pixels")] = 0.5
    frames: Annotated[
        int, Range(0), Help("every how many steps to keep a frame of the animation; 0: none")
    ] = 0
    seed: Annotated[int, Range(0), Help("of the shifts")] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def inspect(self, subject: Subject) -> Findings:
        """Make the pictures.

        Parameters
        ----------
        subject : Subject
            The network, and perhaps targets: class scores, each of which gives a picture.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If the network does not look at pictures, or its answer is no vector of classes.
        ParameterError
            If the classes cannot be read.
        TargetError
            If a target is not the score of a class.
        UnknownClassError
            If there is no such class.
        """
        if len(subject.shape) != 3:
            raise ArrayError(
                f"the network's input has the shape {subject.shape}",
                "(H, W, C)",
                "use a network that looks at pictures",
            )
        shape = (*subject.shape[:2], subject.space.colours)
        mean = _mean(subject).astype(next(iter(subject.model.inputs.values())).dtype)
        grey = np.broadcast_to(mean, (1, *shape))
        wanted = self._wanted(subject, grey)
        pixels = Pixels(shape, decorrelate=False, bounded=False)
        shift = round(self.jitter * min(shape[:2]))
        values = float(np.prod(shape))
        climb = Climb(
            subject.model,
            subject.space,
            tuple(Objective.of(target, subject.label(target.index)) for target in wanted),
            pixels,
            (Jitter(shift),) if shift else (),
            weighted((self.l2 / values, L2(mean))),
        )
        made = make(
            climb,
            np.repeat(pixels.parameters(grey), len(wanted), 0),
            Plain(self.step_size, normalise=True),
            self.steps,
            subject=subject,
            seed=np.random.SeedSequence(self.seed),
            settle=self._blurred if self.blur else None,
            every=self.frames,
            what="class models",
        )
        names = list(dict.fromkeys(map(str, climb.objectives)))
        named = ", ".join(names) if len(names) < 4 else f"{len(names)} classes"
        return Findings(
            arrays=made.arrays,
            exhibits=(made.gallery(), made.curves()),
            facts={**made.facts, "classes": [target.index for target in wanted], "seed": self.seed},
            title=f"What {subject.name} takes for {named}",
            frames=made.animation,
        )

    def _blurred(self, parameters: Array) -> Array:
        """Blur each colour of each picture."""
        from scipy.ndimage import gaussian_filter

        blurred: Array = gaussian_filter(parameters, (0, self.blur, self.blur, 0))
        return blurred

    def _wanted(self, subject: Subject, grey: Array) -> list[ClassScore]:
        """Give the classes that are asked for."""
        logits = subject.model.forward(subject.space.to_input(grey)).logits
        if logits.ndim != 2:
            raise ArrayError(
                f"the network gives {logits.shape[1:]} for a picture",
                "a vector with one score for each class",
                "use maximisation with a layer and a channel",
            )
        if subject.targets:
            return [_class(target, logits[0]) for target in dict.fromkeys(subject.targets)]
        n = logits.shape[1]
        found: list[int] = []
        for part in filter(None, (part.strip() for part in self.classes.split(";"))):
            read = _RANGE.fullmatch(part)
            found += (
                range(int(read["first"]), int(read["last"]) + 1)
                if read
                else [find_class(part, subject.labels)]
            )
        if self.classes == type(self).classes:
            found = [k for k in found if k < n]
        if not found or max(found) >= n:
            raise ParameterError(
                f"classes={self.classes!r} names "
                + (f"class {max(found)}, and there are {n}" if found else "no class"),
                f"classes from 0 to {n - 1}",
                "count from 0",
            )
        return [ClassScore(k) for k in dict.fromkeys(found)]


def _class(target: Target, logits: Array) -> ClassScore:
    """Check that a target is a class's score."""
    resolved = target.resolve(logits)
    if not isinstance(resolved, ClassScore):
        raise TargetError(
            f"a class model was asked of {target}",
            "the score of a class",
            "use maximisation for anything else",
        )
    resolved.score(logits)  # raises where there is no such class
    return resolved


def _mean(subject: Subject) -> Array:
    """Give the colour (K,) of the mean picture."""
    zero = subject.space.to_colours(np.zeros(subject.shape[2]))
    inside = bool(np.all((zero > 0) & (zero < 1)))
    return zero if inside else np.full(subject.space.colours, 0.5)
