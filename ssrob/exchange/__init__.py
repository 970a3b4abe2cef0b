"""Results that travel: a trained model for others to use, and finished stages from one machine to another. No torch."""

from ssrob.exchange.export import export_model, export_study
from ssrob.exchange.take_over import Outcome, take_over

__all__ = ["Outcome", "export_model", "export_study", "take_over"]
