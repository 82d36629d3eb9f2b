"""A tour of what a server and its client can do with each other.

It is that of ``../typescript/shared/features.mjs``: the same stops in the same order, the same answers to the server's questions,
and a ``feature`` event after each. Whether what came of it is right is for the test to judge.
"""

import warnings
from collections.abc import Callable
from typing import Any

import anyio
from mcp import Client, types
from mcp.shared.exceptions import MCPDeprecationWarning

WATCHED = "test://watched-resource"
PATIENCE_SECONDS = 20.0
"""How long something may take to arrive."""

Emit = Callable[..., None]


class Heard:
    """The notifications that a client was sent, in the order in which they came."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._news = anyio.Event()

    async def add(self, message: Any) -> None:
        """Notes one; also told of failures of the transport, which are not notifications."""
        if not isinstance(message, Exception):
            self._messages.append(message)
            self._news.set()
            self._news = anyio.Event()

    def of(self, method: str) -> list[Any]:
        """Those of a method."""
        return [message for message in self._messages if message.method == method]

    async def until(self, method: str, count: int) -> None:
        """Waits until there are ``count`` of a method."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while len(self.of(method)) < count:
                await self._news.wait()


class Equipment:
    """What a client brings to the tour: a model, a user, two roots, and an ear."""

    def __init__(self) -> None:
        self.heard = Heard()

    def options(self) -> dict[str, Any]:
        """Arguments of ``Client``."""
        return {
            "sampling_callback": self._sample,
            "elicitation_callback": self._elicit,
            "list_roots_callback": self._roots,
            "message_handler": self.heard.add,
        }

    async def _sample(self, _context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        asked = params.messages[0].content
        if not isinstance(asked, types.TextContent):
            raise ValueError("the server asked with something else than text")
        text = types.TextContent(type="text", text=f"sampled: {asked.text}")
        return types.CreateMessageResult(role="assistant", content=text, model="interop-python", stop_reason="endTurn")

    async def _elicit(self, _context: Any, _params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.org"})

    async def _roots(self, _context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///one"), types.Root(uri="file:///two")])


async def tour(client: Client, heard: Heard, emit: Emit) -> None:
    """Takes the tour. The SDK warns of what the next revision of MCP drops, which this one still has."""
    warnings.simplefilter("ignore", MCPDeprecationWarning)

    async def call(name: str, arguments: dict[str, Any] | None = None) -> str:
        return text_of(await client.call_tool(name, arguments or {}))

    progress: list[int] = []

    async def report(done: float, _total: float | None, _message: str | None) -> None:
        progress.append(round(done))

    await client.call_tool("test_tool_with_progress", {}, progress_callback=report)
    emit("feature", name="progress", result=progress)

    await client.set_logging_level("debug")
    await call("test_tool_with_logging")
    await heard.until("notifications/message", 3)
    emit("feature", name="logging", result=[message.params.data for message in heard.of("notifications/message")])

    await client.set_logging_level("error")
    await call("test_tool_with_logging")
    await call("change_tools")
    # What was sent before it would have come before it.
    await heard.until("notifications/tools/list_changed", 1)
    emit("feature", name="list_changed", result=len(heard.of("notifications/message")))

    emit("feature", name="sampling", result=await call("test_sampling", {"prompt": "hello"}))
    emit("feature", name="elicitation", result=await call("test_elicitation", {"message": "who?"}))
    emit("feature", name="roots", result=await call("roots"))

    await client.subscribe_resource(WATCHED)
    await call("update_resource", {"uri": WATCHED})
    await heard.until("notifications/resources/updated", 1)
    await client.unsubscribe_resource(WATCHED)
    after = await call("update_resource", {"uri": WATCHED})
    updates = [str(message.params.uri) for message in heard.of("notifications/resources/updated")]
    emit("feature", name="subscription", result=[*updates, after])

    await cancel(client)
    # The cancellation is a message of its own, which may come after the next call.
    cancelled = ""
    with anyio.move_on_after(PATIENCE_SECONDS):
        while not (cancelled := await call("cancelled")):
            await anyio.sleep(0.05)
    emit("feature", name="cancellation", result=cancelled)

    emit("feature", name="resumption", result=await call("test_reconnection"))


async def cancel(client: Client) -> None:
    """Cancels a call as soon as it has begun."""
    with anyio.CancelScope() as scope:

        async def begun(_done: float, _total: float | None, _message: str | None) -> None:
            scope.cancel()

        await client.call_tool("wait", {"tag": "mine"}, progress_callback=begun)


def text_of(result: types.CallToolResult) -> str:
    """The text of a result."""
    content = result.content[0]
    if not isinstance(content, types.TextContent):
        raise ValueError("the tool answered with something else than text")
    return content.text
