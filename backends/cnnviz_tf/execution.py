"""Running functions as they were traced, without rewriting their arithmetic.

Grappler fuses and reorders operations unless something between them is asked for.  So a value would
depend, in its last digits, on which other values are asked for; and a grouped convolution that is
fused does not run at all on CPUs without oneDNN.  The switch for one thread is no public part of
TensorFlow: all that is known of it is in this file, and where it is missing functions run as the
process is configured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

__all__ = ["as_traced"]

_OFF: Final = rewriter_config_pb2.RewriterConfig.OFF


@contextmanager
def as_traced() -> Iterator[None]:
    """Let the current thread run functions without rewriting their arithmetic."""
    try:
        from tensorflow.python.eager import context

        eager = context.context()
        before = eager.function_call_options
        options: Any = context.FunctionCallOptions(before.executor_type, _unchanging(before))
    except (ImportError, AttributeError, TypeError):
        yield
        return
    eager.function_call_options = options
    try:
        yield
    finally:
        eager.function_call_options = before


def _unchanging(options: Any) -> config_pb2.ConfigProto:
    """Copy a configuration, with the passes off that change how numbers come about."""
    config = config_pb2.ConfigProto.FromString(options.config_proto_serialized)
    for name in ("remapping", "constant_folding", "arithmetic_optimization"):
        setattr(config.graph_options.rewrite_options, name, _OFF)
    return config
