"""The map maths, in pure NumPy: arrays are batch first and channels last.

float32 and float64 arrays keep their type; everything else becomes float32.
"""

from cnnviz_core.maps.boxes import boxes_of, clip_boxes, components, iou, threshold_mask
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
