"""`insight chat`: the chatbot, in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clients.chatbot.settings import ChatSettings
from clients.documents.settings import DocumentSettings


def chat(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: INSIGHT_CHAT_HOST].")] = None,
    port: Annotated[int | None, typer.Option(help="Port [default: INSIGHT_CHAT_PORT].")] = None,
) -> None:
    """Chat about metrics and documents, in a browser."""
    import streamlit  # noqa: F401 - so that a missing one is said before anything runs

    given = {"host": host, "port": port}
    settings = ChatSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type] # parsed by pydantic
    options = {
        "server.address": settings.host,
        "server.port": settings.port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": DocumentSettings().max_mb,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    os.environ["INSIGHT_CHAT_HOST"] = settings.host  # the page reads the settings anew
    typer.echo(f"Chat: http://{settings.host}:{settings.port}", err=True)
    app = Path(__file__).with_name("served.py")
    # In place of this process, so that whoever stops it stops the server.
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(app), *flags])  # noqa: S606 - our own
