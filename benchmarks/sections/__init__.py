"""The tables: what is timed in each."""

from __future__ import annotations

from benchmarks.sections import cams, gradients, masks, registry, relevance, synthesis, whole
from benchmarks.task import Section

SECTIONS: dict[str, Section] = {
    section.name: section
    for section in (
        *cams.SECTIONS,
        *gradients.SECTIONS,
        *masks.SECTIONS,
        *relevance.SECTIONS,
        *synthesis.SECTIONS,
        *whole.SECTIONS,
        *registry.SECTIONS,
    )
}
"""By name, in the order in which they are printed."""
