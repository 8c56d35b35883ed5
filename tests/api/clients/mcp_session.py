"""Runs in the environment of dbt-mcp: starts it over stdio as an assistant does, and calls its tools.

Reads `[[tool, arguments], …]` as JSON from its input, and writes {"tools": […], "results": [{"failed", "text"}, …]}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def converse(calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What the tools are, and what each call answered."""
    server = StdioServerParameters(command=str(Path(sys.executable).with_name("dbt-mcp")), env=dict(os.environ))
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        answers = [await session.call_tool(name, arguments) for name, arguments in calls]
    return {
        "tools": tools,
        "results": [
            {"failed": answer.isError, "text": "".join(part.text for part in answer.content)} for answer in answers
        ],
    }


if __name__ == "__main__":
    json.dump(asyncio.run(converse(json.load(sys.stdin))), sys.stdout)
