"""The MLflow UI over a results folder, on this machine alone."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from ssrob.tracking.client import TrackingError, default_uri, set_environment, without_password
from ssrob.tracking.view import view_path

HOST = "127.0.0.1"
START_SECONDS = 120.0  # a cold disk and two busy cores take half of it


def serve(root: Path, tracking_uri: str | None = None, port: int = 5000, *, study: str | None = None) -> int:
    """Show the tracking store of a results folder until it is stopped; returns the server's exit code.

    A port that is taken is replaced by a free one. A remote store needs no server: its address is printed.
    """
    uri = tracking_uri or default_uri(root)
    if uri.startswith("http"):
        print(f"the tracking server is at {without_password(uri, uri)}")
        return 0
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise TrackingError(f"tracking store {uri}: nothing there yet; run `ssrob track` first")
    chosen = free_port(port)
    if chosen != port:
        print(f"port {port} is taken; using {chosen}")
    print("starting the MLflow UI (about 15 s) ...", flush=True)
    set_environment()
    page = f"http://{HOST}:{chosen}{_first_page(uri, study)}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs the `finally` below
    log = root / "mlflow-server.log"
    server = _start(uri, root, chosen, log)
    try:
        _wait_until_ready(server, chosen, log)
        print(f"{page}\nstop it with Ctrl-C; its messages go to {log}", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def free_port(wanted: int) -> int:
    """Return the wanted port, or any free one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TrackingError(f"no free port on {HOST}")


def _first_page(uri: str, study: str | None) -> str:
    """Return where the UI shows a study's trained models; without a study, or before its import, the start page."""
    from mlflow import MlflowClient

    experiment = study and MlflowClient(tracking_uri=uri).get_experiment_by_name(study)
    return view_path(experiment.experiment_id) if experiment else ""


def _start(uri: str, root: Path, port: int, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(root.resolve() / "mlartifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as messages:  # a session of its own: Ctrl-C reaches us alone, and we stop the server
        return subprocess.Popen(command, env=environment, stdout=messages, stderr=messages, start_new_session=True)


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise TrackingError(f"the MLflow server ended with exit code {server.returncode}; see {log}")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise TrackingError(f"the MLflow server did not answer within {START_SECONDS:g} s; see {log}")
