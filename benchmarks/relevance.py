"""Layer-wise relevance propagation on PyTorch: cnnviz beside zennit.

Run ``python benchmarks/relevance.py``; it needs torchvision and zennit.  The networks have random
weights: the cost does not depend on them.  zennit has its composite registered once, before the
clock starts; cnnviz starts from the user's network every time.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleaved import measure, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.torchvision_ops import define

define()

import torchvision  # noqa: E402
from zennit import composites  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.torchvision import ResNetCanonizer  # noqa: E402

from cnnviz_core.model import INPUT  # noqa: E402
from cnnviz_core.registry import get_registry  # noqa: E402
from cnnviz_core.rules import STANDARD, BackwardRule  # noqa: E402
from cnnviz_torch.model import wrap  # noqa: E402

LOW, HIGH = -2.2, 2.7
PEERS = {
    "epsilon-plus": composites.EpsilonPlus,
    "epsilon-plus-flat": composites.EpsilonPlusFlat,
    "epsilon-gamma-box": lambda **options: composites.EpsilonGammaBox(LOW, HIGH, **options),
    "epsilon-alpha2-beta1": composites.EpsilonAlpha2Beta1,
}


def ways_of(network: str, batch: int) -> dict[str, Callable[[], object]]:
    """Give the ways of making one batch's relevance at the input."""
    torch.manual_seed(0)
    net = getattr(torchvision.models, network)(weights=None).eval()
    x = np.random.default_rng(0).uniform(LOW, HIGH, (batch, 224, 224, 3)).astype(np.float32)
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    model = wrap(net, input_shape=(224, 224, 3))
    canonizer = ResNetCanonizer() if "resnet" in network else SequentialMergeBatchNorm()

    def forward() -> object:
        with torch.no_grad():
            return net(tensor)

    def ours(rule: BackwardRule) -> Callable[[], object]:
        return lambda: model.pullback(x, lambda value: value, wrt=(INPUT,), rule=rule)

    def zennits(name: str) -> Callable[[], object]:
        composite = PEERS[name](canonizers=[canonizer])
        changed = copy.deepcopy(net)
        composite.register(changed)

        def run() -> object:
            leaf = tensor.clone().requires_grad_()
            out = changed(leaf)
            return torch.autograd.grad(out, leaf, out.detach())

        return run

    ways = {"plain forward": forward, "gradient": ours(STANDARD)}
    for name in PEERS:
        rule = get_registry().rule(name)
        short = name.removeprefix("epsilon-")
        ways[short] = ours(rule.bounded((LOW,), (HIGH,)) if rule.needs_bounds else rule)
        ways[f"zennit, {short}"] = zennits(name)
    return ways


def main() -> None:
    """Measure, and print the table."""
    networks = ["resnet50", "vgg16", "mobilenet_v2"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=networks)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {n: measure(ways_of(n, options.batch), options.rounds) for n in options.networks}
    title = (
        f"LRP (epsilon-...) to the picture, 224 x 224, batch {options.batch}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    show(title, results, "plain forward")


if __name__ == "__main__":
    main()
