"""A client on ``fastmcp``, with the interface that ``client.py`` uses of ``mcp.Client``."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import fastmcp
import httpx2
from fastmcp.client.transports import StreamableHttpTransport
from mcp import types
from mcp.client.subscriptions import Subscription, listen


class FastMcpClient:
    """A connected client, as a context."""

    def __init__(self, url: str, auth: httpx2.Auth, options: dict[str, Any]) -> None:
        """``options`` are arguments of ``mcp.Client``."""
        arguments = {"message_handler": options.get("message_handler")}
        if sample := options.get("sampling_callback"):
            arguments["sampling_handler"] = lambda _messages, params, context: sample(context, params)
        if elicit := options.get("elicitation_callback"):
            arguments["elicitation_handler"] = lambda _message, _type, params, context: elicit(context, params)
        if options.get("list_roots_callback"):
            arguments["roots"] = ["file:///one", "file:///two"]
        # The era is the default: modern, with a fallback.
        self._client = fastmcp.Client(StreamableHttpTransport(url, auth=auth), **arguments)

    async def __aenter__(self) -> "FastMcpClient":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.__aexit__(*error)

    @property
    def protocol_version(self) -> str:
        return self._client.protocol_version or ""

    @property
    def server_info(self) -> types.Implementation | None:
        return self._client.server_info

    async def list_tools(self, cursor: str | None = None) -> types.ListToolsResult:
        return await self._client.list_tools_mcp(cursor=cursor)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], *, progress_callback: Any = None, meta: dict[str, Any] | None = None
    ) -> types.CallToolResult:
        return await self._client.call_tool_mcp(name, arguments, progress_handler=progress_callback, meta=meta)

    def listen(self, **subscription: Any) -> AbstractAsyncContextManager[Subscription]:
        return listen(self._client.session, **subscription)
