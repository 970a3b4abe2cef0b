"""MLflow as a view of the results folder: one writer imports what the stages left behind, and a local server shows it.

This package alone imports mlflow, inside functions, because its import takes seconds. No stage depends on it.
"""

from ssrob.tracking.client import TrackingError, default_uri
from ssrob.tracking.importer import Tracked, track
from ssrob.tracking.live import follow, serve_and_follow
from ssrob.tracking.server import serve

__all__ = ["Tracked", "TrackingError", "default_uri", "follow", "serve", "serve_and_follow", "track"]
