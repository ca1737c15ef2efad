"""Make sure that a person has an account in the application, or has none any more, once however many ask."""

from sidecar.provision.ensure import Provisioner
from sidecar.provision.outbox import OutboxWorker
from sidecar.provision.preview import ProvisionPlan

__all__ = ["OutboxWorker", "ProvisionPlan", "Provisioner"]
