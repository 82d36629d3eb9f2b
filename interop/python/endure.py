"""Calls without end, while the server has a hard time.

It is that of ``../typescript/shared/endure.mjs``: one call at a time in each session until an order comes, a ``call`` event for
each, and a ``heard`` event for what the server says beside its answers. What may fail is for the test to judge.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
from mcp import Client

PATIENCE_SECONDS = 20.0
"""How long the last message of the server may take to arrive."""

Emit = Callable[..., None]


class KeptConnections(httpx2.AsyncHTTPTransport):
    """Answers for a server that closed a connection when the next request on it was under way (RFC 9112 section 9.3.1).

    The SDK has no error for a single request that gets no answer: the exception ends all of the client. So it is made an answer.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            message = f"lost with its connection: {type(error).__name__}: {error}"
            lost = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": message}}
            return httpx2.Response(502, json=lost, request=request)


class Ear:
    """What the server says beside its answers, told of as it comes."""

    def __init__(self, name: str, emit: Emit) -> None:
        self._name = name
        self._emit = emit
        self._latest: str | None = None
        self._news = anyio.Event()

    def options(self) -> dict[str, Any]:
        """Arguments of ``Client``."""
        return {"message_handler": self._add}

    async def _add(self, message: Any) -> None:
        # Failures of the transport come here too.
        if getattr(message, "method", None) == "notifications/message":
            self._emit("heard", session=self._name, data=message.params.data)
            self._latest = message.params.data["mark"]
            self._news.set()
            self._news = anyio.Event()

    async def until(self, mark: str) -> None:
        """Waits until this one has come."""
        with anyio.move_on_after(PATIENCE_SECONDS):
            while self._latest != mark:
                await self._news.wait()


class Endurance:
    """One session, which makes calls until it is told that it is over."""

    def __init__(self, name: str, client: Client, ear: Ear, emit: Emit, describe: Callable[[BaseException], str]) -> None:
        self._name = name
        self._client = client
        self._ear = ear
        self._emit = emit
        self._describe = describe

    async def run(self, over: anyio.Event) -> None:
        turn = 0
        while not over.is_set():
            await anyio.sleep(0.02 + random.random() * 0.1)
            await self._call(turn)
            turn += 1
        # Now that all is quiet: what the server says arrives.
        await self._ear.until(await self._call(turn))

    async def _call(self, turn: int) -> str:
        mark = f"{self._name}.{turn}"
        wait = random.randrange(60) if turn % 2 == 0 else 0
        arguments = {"mark": mark, "whose": True, "announce": True, "ms": wait}
        began = milliseconds()
        try:
            result = await self._client.call_tool("test_stamp", arguments)
            outcome = {"text": result.content[0].text}
        except Exception as error:
            outcome = {"failed": self._describe(error)}
        self._emit("call", session=self._name, mark=mark, began=began, ended=milliseconds() + 1, **outcome)
        return mark


def milliseconds() -> int:
    """The time of day."""
    return int(time.time() * 1000)
