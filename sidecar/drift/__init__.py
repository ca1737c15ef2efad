"""Find where the application's accounts are not what they should be, and put right what was ours."""

from sidecar.drift.watch import DriftWatch

__all__ = ["DriftWatch"]
