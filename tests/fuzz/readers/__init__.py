"""Every reader of files, with valid files for it, and what it makes of them."""

from pathlib import Path

from tests.fuzz.readers import chips_and_curves, http_bodies, images, runs_and_reports, weights_and_states
from tests.fuzz.readers.reader import Reader

__all__ = ["Reader", "readers"]


def readers(folder: Path) -> list[Reader]:
    """All of them; what they need is made in the folder."""
    makers = (
        chips_and_curves.make_maps,
        chips_and_curves.make_curves,
        chips_and_curves.make_activation_ranges,
        chips_and_curves.make_domains,
        chips_and_curves.make_topologies,
        images.make_pickles,
        images.make_archives,
        images.make_traffic_signs,
        images.make_pictures,
        weights_and_states.make_weights,
        weights_and_states.make_states,
        runs_and_reports.make_runs,
        runs_and_reports.make_reports,
        http_bodies.make_bodies,
    )
    return [reader for make in makers for reader in make(folder)]
