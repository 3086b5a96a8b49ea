"""Map maths: what is done with maps once a network has given its numbers.

Plain functions on NumPy arrays, batch first and channels last.  float32 and float64 stay what they
are, integers and half precision become float32.  No function changes its arguments.

- channels: feature maps to one map.
- resize: maps to another size.
- normalise: maps to a range in which they can be looked at.
- boxes: maps to boxes, and how boxes overlap.
- status: whether there is anything to see.
"""

from __future__ import annotations

from cnnviz_core.maps.boxes import (
    boxes_of,
    boxes_of_each,
    clip_boxes,
    components,
    iou,
    threshold_mask,
)
from cnnviz_core.maps.channels import channel_means, combine, relu, weight_channels
from cnnviz_core.maps.normalise import (
    min_max,
    percentile_clip,
    reduce_channels,
    scale_to_max,
    symmetric,
)
from cnnviz_core.maps.resize import resize, resize_matrix
from cnnviz_core.maps.status import map_status

__all__ = [
    "boxes_of",
    "boxes_of_each",
    "channel_means",
    "clip_boxes",
    "combine",
    "components",
    "iou",
    "map_status",
    "min_max",
    "percentile_clip",
    "reduce_channels",
    "relu",
    "resize",
    "resize_matrix",
    "scale_to_max",
    "symmetric",
    "threshold_mask",
    "weight_channels",
]
