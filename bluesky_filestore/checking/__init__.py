"""Looking at a detector before it takes data: whether it is ready, and its frames will be found again."""

from .doctor import doctor
from .finding import Finding, Report
from .load_device import load_device

__all__ = ["Finding", "Report", "doctor", "load_device"]
