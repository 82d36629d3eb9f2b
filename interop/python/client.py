"""The official Python SDK as a client that another program drives, one JSON object a line.

The course of a run, the settings and the events are those of the TypeScript clients; ``../README.md`` has them.
Discovery, registration, PKCE, code exchange and refresh are the SDK's own.

Each session has its own HTTP client and ``OAuthClientProvider``, and all share one token storage. A provider holds a
lock from the moment a request is sent until the headers of its answer are there, so that sessions which shared it would
never have two requests under way at once. The price: a provider reads the storage once and does not learn from it when
the tokens expire, so that every session but the first meets expiry with another sign-in. Test refreshing with one.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from endure import Ear, Endurance, KeptConnections
from features import Equipment, tour

NAME = "interop-python"
REQUEST_TIMEOUT_SECONDS = 60.0
"""How long a request may take. The TypeScript SDKs have the same default, this one waits for ever."""


def emit(event: str, **fields: Any) -> None:
    """Prints one event."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Orders:
    """The orders on stdin. Redirects have a queue of their own, since the SDK may want a sign-in at any time."""

    _BACKLOG = 16
    """Lines that wait to be taken, of each kind; beyond it, reading waits."""

    def __init__(self) -> None:
        self._redirect_in, self._redirect_out = anyio.create_memory_object_stream[str](self._BACKLOG)
        self._command_in, self._command_out = anyio.create_memory_object_stream[dict[str, Any]](self._BACKLOG)

    async def read(self) -> None:
        """Sorts lines until stdin is closed."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with self._redirect_in, self._command_in:
            while line := await reader.readline():
                order = json.loads(line)
                if "redirect" in order:
                    await self._redirect_in.send(order["redirect"])
                else:
                    await self._command_in.send(order)

    async def redirect(self) -> str:
        """Where the browser came back to."""
        try:
            return await self._redirect_out.receive()
        except anyio.EndOfStream:
            raise EOFError("stdin was closed while a sign-in was under way") from None

    async def command(self) -> dict[str, Any] | None:
        """The next order of another kind, or ``None`` once stdin is closed."""
        try:
            return await self._command_out.receive()
        except anyio.EndOfStream:
            return None


@dataclass(frozen=True)
class Settings:
    """What a run is to do, read once from the environment."""

    url: str
    redirect_uri: str
    client_metadata_url: str | None
    sessions: int
    calls: int
    tool: str
    arguments: dict[str, Any]
    era: str
    hold: bool
    features: bool
    endure: str

    @classmethod
    def read(cls) -> "Settings":
        def required(name: str) -> str:
            value = os.environ.get(name, "")
            if not value:
                raise ValueError(f"{name} is not set")
            return value

        def count(name: str, least: int) -> int:
            value = os.environ.get(name, "1")
            if not value.isdecimal() or int(value) < least:
                raise ValueError(f"{name} must be a whole number of at least {least}")
            return int(value)

        def choice(name: str, *values: str) -> str:
            value = os.environ.get(name, values[0])
            if value not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}")
            return value

        features = choice("FEATURES", "0", "1") == "1"
        endure = os.environ.get("ENDURE", "")
        return cls(
            url=required("MCP_URL"),
            redirect_uri=required("REDIRECT_URI"),
            client_metadata_url=os.environ.get("CLIENT_METADATA_URL") or None,
            sessions=count("SESSIONS", 1),
            calls=count("CALLS", 0),
            tool="" if features or endure else required("TOOL"),
            arguments=json.loads(os.environ.get("ARGUMENTS", "{}")),
            era=choice("ERA", "legacy", "auto"),
            hold=choice("HOLD", "0", "1") == "1",
            features=features,
            endure=endure,
        )


def fill_in(value: Any, session: int, call: int) -> Any:
    """A copy in which ``{session}`` and ``{call}`` are replaced by the numbers, in every string at any depth."""
    if isinstance(value, str):
        return value.replace("{session}", str(session)).replace("{call}", str(call))
    if isinstance(value, list):
        return [fill_in(item, session, call) for item in value]
    if isinstance(value, dict):
        return {key: fill_in(item, session, call) for key, item in value.items()}
    return value


class MemoryStorage(TokenStorage):
    """Tokens and registration of this process."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


@dataclass
class SignIn:
    """The person at the browser, played by the program that drives this one."""

    settings: Settings
    orders: Orders
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """One visit at a time: an order says nothing about which ``authorize`` event it answers."""
    providers: dict[int, OAuthClientProvider] = field(default_factory=dict)
    """By the number of the session, which keeps its own when it is opened anew: that one knows when its tokens expire."""

    def provider(self, number: int) -> OAuthClientProvider:
        """The provider of one session."""
        if number not in self.providers:
            self.providers[number] = self._new_provider()
        return self.providers[number]

    def _new_provider(self) -> OAuthClientProvider:
        address = ""

        async def redirect(url: str) -> None:
            nonlocal address
            address = url

        async def callback() -> AuthorizationCodeResult:
            return await self._visit(address)

        return OAuthClientProvider(
            server_url=self.settings.url,
            client_metadata=OAuthClientMetadata(client_name=NAME, redirect_uris=[AnyUrl(self.settings.redirect_uri)]),
            storage=self.storage,
            redirect_handler=redirect,
            callback_handler=callback,
            client_metadata_url=self.settings.client_metadata_url,
        )

    async def _visit(self, address: str) -> AuthorizationCodeResult:
        async with self.lock:
            emit("authorize", url=address)
            redirect = await self.orders.redirect()
        came, expected = urlsplit(redirect), urlsplit(self.settings.redirect_uri)
        if (came.scheme, came.netloc, came.path) != (expected.scheme, expected.netloc, expected.path):
            raise ValueError(
                f"the browser came back to {came.scheme}://{came.netloc}{came.path}, not to the redirect URI"
            )
        parameters = {name: values[0] for name, values in parse_qs(came.query).items()}
        if "error" in parameters:
            reason = f"{parameters['error']} ({parameters.get('error_description', '')})"
            raise ValueError(f"authorization refused: {reason}")
        # The SDK compares `state` and `iss` itself.
        return AuthorizationCodeResult(
            code=parameters.get("code", ""), state=parameters.get("state"), iss=parameters.get("iss")
        )


@dataclass(frozen=True)
class Session:
    """One open MCP session."""

    number: int
    client: Client
    settings: Settings
    equipment: Equipment | Ear

    async def take_tour(self) -> None:
        assert isinstance(self.equipment, Equipment)
        await tour(self.client, self.equipment.heard, emit)

    async def list_tools(self) -> None:
        count, cursor = 0, None
        while True:
            page = await self.client.list_tools(cursor=cursor)
            count += len(page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        emit("tools", session=self.number, count=count)

    async def call_all(self) -> None:
        async with anyio.create_task_group() as group:
            for call in range(self.settings.calls):
                group.start_soon(self._call, call)

    async def _call(self, call: int) -> None:
        arguments = fill_in(self.settings.arguments, self.number, call)
        try:
            result = await self.client.call_tool(self.settings.tool, arguments)
        except Exception as error:
            if not self.settings.hold:
                raise
            emit("error", session=self.number, call=call, message=describe(error))
            return
        text = next((content.text for content in result.content if content.type == "text"), None)
        emit("result", session=self.number, call=call, text=text, isError=bool(result.is_error))


@asynccontextmanager
async def connect(
    number: int, settings: Settings, sign_in: SignIn, equipment: Equipment | Ear
) -> AsyncIterator[Client]:
    """A connected client; leaving the context ends the MCP session."""
    # The limits that the SDK's own client would have; it has no place for a sign-in. A proxy that the environment
    # names has no part in a test on loopback.
    timeout = httpx2.Timeout(30.0, read=300.0)
    kept = KeptConnections() if settings.endure else None
    auth = sign_in.provider(number)
    async with httpx2.AsyncClient(auth=auth, timeout=timeout, transport=kept, trust_env=False) as http:
        transport = streamable_http_client(settings.url, http_client=http)
        options = equipment.options() if settings.features or settings.endure else {}
        async with Client(
            transport, mode=settings.era, read_timeout_seconds=REQUEST_TIMEOUT_SECONDS, **options
        ) as client:
            yield client


async def keep_open(
    number: int,
    settings: Settings,
    sign_in: SignIn,
    closing: anyio.Event,
    *,
    task_status: anyio.abc.TaskStatus[Session],
) -> None:
    """Holds a session open until ``closing``. The SDK's contexts must be left by the task that entered them."""
    equipment = Ear(f"{settings.endure}-{number}", emit) if settings.endure else Equipment()
    async with connect(number, settings, sign_in, equipment) as client:
        server = client.server_info
        emit("session", session=number, protocol=client.protocol_version, server=server.name if server else None)
        task_status.started(Session(number, client, settings, equipment))
        await closing.wait()


async def obey(sessions: list[Session], orders: Orders) -> bool:
    """Repeats the calls once per order, until told to end or stdin is closed; ``True``: open all sessions anew."""
    while True:
        emit("ready")
        order = await orders.command()
        if order is None or order.get("end"):
            return False
        if order.get("reopen"):
            return True
        if not order.get("call"):
            raise ValueError("expected an order to call, to reopen or to end")
        await for_each(sessions, Session.call_all)


async def endure(sessions: list[Session], orders: Orders) -> None:
    """Has all sessions make calls until the next order."""
    over = anyio.Event()
    emit("ready")
    async with anyio.create_task_group() as group:
        for session in sessions:
            name = f"{session.settings.endure}-{session.number}"
            assert isinstance(session.equipment, Ear)
            group.start_soon(Endurance(name, session.client, session.equipment, emit, describe).run, over)
        await orders.command()
        over.set()


async def for_each(sessions: list[Session], work: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    """Does the same in all sessions at once."""
    async with anyio.create_task_group() as group:
        for session in sessions:
            group.start_soon(work, session)


async def run() -> None:
    settings = Settings.read()
    orders = Orders()
    async with anyio.create_task_group() as group:
        group.start_soon(orders.read)
        await drive(settings, orders)
        group.cancel_scope.cancel()


async def drive(settings: Settings, orders: Orders) -> None:
    sign_in = SignIn(settings, orders)
    while await open_and_call(settings, orders, sign_in):
        pass


async def open_and_call(settings: Settings, orders: Orders, sign_in: SignIn) -> bool:
    """The course of a run, once; ``True`` if it is wanted once more, with the tokens that are there."""
    again = False
    closing = anyio.Event()
    async with anyio.create_task_group() as keepers:
        # The first session signs in, the others are opened together with its tokens.
        sessions: list[Session] = [await keepers.start(keep_open, 0, settings, sign_in, closing)]

        async def another(number: int) -> None:
            sessions.append(await keepers.start(keep_open, number, settings, sign_in, closing))

        async with anyio.create_task_group() as openers:
            for number in range(1, settings.sessions):
                openers.start_soon(another, number)

        if settings.endure:
            await endure(sessions, orders)
            closing.set()
            return False
        await for_each(sessions, Session.list_tools)
        await for_each(sessions, Session.take_tour if settings.features else Session.call_all)
        if settings.hold:
            again = await obey(sessions, orders)
        closing.set()
    return again


def describe(error: BaseException) -> str:
    """One line that names an error; of a group, the errors in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


def main() -> int:
    try:
        anyio.run(run)
    except Exception as error:
        emit("error", message=describe(error))
        return 1
    emit("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
