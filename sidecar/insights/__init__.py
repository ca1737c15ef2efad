"""Notice what is odd about who comes and what becomes of it, and tell once."""

from sidecar.insights.alerts import Alert, Alerts
from sidecar.insights.watch import Watch

__all__ = ["Alert", "Alerts", "Watch"]
