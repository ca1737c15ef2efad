"""Make the engines that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.config.engines import CedarEngine, EngineSection, OpenFgaEngine
from sidecar.engines.engine import Engine
from sidecar.engines.engines import ChangesOfPeople, Engines, Seat
from sidecar.engines.opa import Opa
from sidecar.engines.openfga import OpenFga
from sidecar.telemetry.metrics import Metrics


def open_engine(name: str, section: EngineSection) -> Engine:
    """One engine, connected to nothing yet. Raises ValueError when the section cannot work."""
    if isinstance(section, CedarEngine):
        try:
            from sidecar.engines.cedar import Cedar  # noqa: PLC0415 - its library is optional
        except ImportError:
            message = f"{name}: cedarpy is not installed; in the sidecar's source: pip install '.[cedar]'"
            raise ValueError(message) from None
        return Cedar(name, section)
    return OpenFga(name, section) if isinstance(section, OpenFgaEngine) else Opa(name, section)


def open_engines(
    sections: Mapping[str, EngineSection], metrics: Metrics | None = None, changes: ChangesOfPeople | None = None
) -> Engines:
    """All of them; they are counted for nobody without *metrics*. Raises ValueError."""
    seats = {
        name: Seat(open_engine(name, section), section.remember.total_seconds()) for name, section in sections.items()
    }
    return Engines(seats, metrics or Metrics(), changes)
