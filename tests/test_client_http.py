"""One connection, in virtual time over a socket pair: stamps, framing, timeouts and every way it can break."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from canned import cut, pair
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from raybench.client.http import (
    RESPONSE_BYTES,
    Address,
    ConnectError,
    Connection,
    Failure,
    Reply,
    connect,
    tls_context,
)
from raybench.clock import NS_PER_S, Clock, monotonic_ns
from raybench.virtual import run_virtually

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
PLAIN = b"HTTP/1.1 200 OK\r\nX-Amzn-RequestId: r-1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listening(port_holder: list[int], tls: ssl.SSLContext | None = None) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(REQUEST))
            writer.write(PLAIN)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port_holder.append(server.sockets[0].getsockname()[1])
    return server


def exchanged(peer: Peer, *, total_s: float = 75.0, idle_s: float = 60.0) -> Reply:
    """What one exchange with `peer` gives, in virtual time."""

    async def main(clock: Clock) -> Reply:
        connection, reader, writer = await pair(clock)
        server = asyncio.ensure_future(peer(reader, writer))
        got = await connection.exchange(REQUEST, int(total_s * NS_PER_S), int(idle_s * NS_PER_S), reused=True)
        server.cancel()
        connection.abort()
        writer.transport.abort()
        await asyncio.gather(server, return_exceptions=True)
        await asyncio.sleep(0)
        return got

    return run_virtually(main)


def saying(*pieces: bytes | float, hang_up: bool = False) -> Peer:
    """A peer that reads the request, writes each piece and waits each number of seconds."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(REQUEST)) == REQUEST
        for piece in pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
            else:
                await asyncio.sleep(piece)
        if hang_up:
            writer.close()
        else:
            await asyncio.sleep(3600)

    return peer


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_response_with_a_length_is_whole_at_its_last_byte() -> None:
    reply = exchanged(saying(PLAIN))
    assert (reply.status, reply.body, reply.failure, reply.reused) == (200, b"hello", None, True)
    assert reply.header(b"x-amzn-requestid") == "r-1"


def arrived(reply: Reply) -> list[tuple[float, bytes]]:
    """What each read brought of the body, and the second of its stamp."""
    edges = pairwise([*reply.starts, len(reply.body)])
    pieces = [reply.body[start:end] for start, end in edges]
    return [(stamp / NS_PER_S, piece) for stamp, piece in zip(reply.stamps, pieces, strict=True)]


def test_every_read_has_the_instant_at_which_its_bytes_arrived() -> None:
    reply = exchanged(saying(1.0, CHUNKED, 0.5, chunk(b"a") + chunk(b"b"), 0.25, chunk(b"c"), 2.0, b"0\r\n\r\n"))
    assert arrived(reply) == [(1.0, b""), (1.5, b"ab"), (1.75, b"c"), (3.75, b"")]
    assert (reply.sent_ns, reply.first_byte_ns, reply.end_ns) == (0, NS_PER_S, 3.75 * NS_PER_S)


@given(st.binary(max_size=300), st.lists(st.integers(0), max_size=8), st.lists(st.integers(0), max_size=8))
def test_framing_is_taken_off_however_the_bytes_are_cut(body: bytes, chunks: list[int], cuts: list[int]) -> None:
    framed = CHUNKED + b"".join(chunk(piece) for piece in cut(body, chunks) if piece) + b"0\r\n\r\n"
    pieces: list[bytes | float] = []
    for piece in cut(framed, cuts):
        pieces += [piece, 0.001]
    reply = exchanged(saying(*pieces))
    assert (reply.status, reply.body, reply.failure) == (200, body, None)
    assert b"".join(piece for _, piece in arrived(reply)) == body
    assert reply.end_ns == reply.stamps[-1]


def test_one_connection_serves_one_exchange_after_another() -> None:
    async def main(clock: Clock) -> list[tuple[bool, bool, bytes]]:
        connection, reader, writer = await pair(clock)
        seen: list[tuple[bool, bool, bytes]] = []
        for text in (b"first", b"other"):
            before = connection.usable
            waiting = asyncio.ensure_future(connection.exchange(REQUEST, NS_PER_S, NS_PER_S, reused=True))
            await reader.readexactly(len(REQUEST))
            during = connection.usable
            writer.write(PLAIN.replace(b"hello", text))
            seen.append((before, during, (await waiting).body))
        writer.close()
        connection.close()
        await asyncio.sleep(0)
        return seen

    assert run_virtually(main) == [(True, False, b"first"), (True, False, b"other")]


def test_continue_is_no_response() -> None:
    reply = exchanged(saying(b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN))
    assert (reply.status, reply.body) == (200, b"hello")


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    reply = exchanged(saying(b"HTTP/1.1 200 OK\r\n\r\nall of it", 1.0, hang_up=True))
    assert (reply.body, reply.failure) == (b"all of it", None)


def test_silence_is_a_total_timeout_at_exactly_its_time() -> None:
    reply = exchanged(saying(), total_s=75, idle_s=60)
    assert (reply.failure, reply.status, reply.end_ns) == (Failure.TOTAL_TIMEOUT, None, 75 * NS_PER_S)


def test_a_stream_that_stalls_is_an_idle_timeout_and_keeps_its_pieces() -> None:
    reply = exchanged(saying(CHUNKED, 1.0, chunk(b"token"), 30.0, chunk(b"token")), total_s=500, idle_s=60)
    assert reply.failure is Failure.IDLE_TIMEOUT
    assert reply.body == b"tokentoken"
    assert reply.end_ns == 91 * NS_PER_S


def test_a_stream_that_never_stalls_and_never_ends_is_a_total_timeout() -> None:
    drops = [each for _ in range(20) for each in (chunk(b"."), 50.0)]
    reply = exchanged(saying(CHUNKED, *drops), total_s=500, idle_s=60)
    assert (reply.failure, reply.end_ns, len(reply.body)) == (Failure.TOTAL_TIMEOUT, 500 * NS_PER_S, 10)


def test_every_exchange_of_a_connection_has_its_own_time() -> None:
    async def main(clock: Clock) -> list[tuple[Failure | None, float]]:
        connection, reader, writer = await pair(clock)
        seen: list[tuple[Failure | None, float]] = []
        for answers, total_s, idle_s in ((True, 75, 60), (True, 10, 60), (False, 80, 60)):
            began_ns = clock()
            waiting = asyncio.ensure_future(
                connection.exchange(REQUEST, total_s * NS_PER_S, idle_s * NS_PER_S, reused=True)
            )
            await reader.readexactly(len(REQUEST))
            await asyncio.sleep(8)
            if answers:
                writer.write(PLAIN)
            reply = await waiting
            seen.append((reply.failure, (reply.end_ns - began_ns) / NS_PER_S))
            await asyncio.sleep(1)
        writer.transport.abort()
        await asyncio.sleep(0)
        return seen

    assert run_virtually(main) == [(None, 8), (None, 8), (Failure.TOTAL_TIMEOUT, 80)]


def test_a_shorter_time_than_that_of_the_exchange_before_is_kept() -> None:
    async def main(clock: Clock) -> tuple[Failure | None, float]:
        connection, reader, writer = await pair(clock)
        for total_s in (500, 5):
            waiting = asyncio.ensure_future(
                connection.exchange(REQUEST, total_s * NS_PER_S, 60 * NS_PER_S, reused=True)
            )
            await reader.readexactly(len(REQUEST))
            if total_s == 500:
                writer.write(PLAIN)
                await waiting
        reply = await waiting
        writer.transport.abort()
        await asyncio.sleep(0)
        return reply.failure, (reply.end_ns - (reply.sent_ns or 0)) / NS_PER_S

    assert run_virtually(main) == (Failure.TOTAL_TIMEOUT, 5)


def test_a_connection_closed_before_the_response_is_a_reset() -> None:
    reply = exchanged(saying(hang_up=True))
    assert (reply.failure, reply.status, reply.first_byte_ns) == (Failure.RESET, None, None)


@pytest.mark.parametrize("head", [CHUNKED + chunk(b"part"), PLAIN.replace(b"hello", b"part")])
def test_a_connection_closed_inside_the_body_is_a_cut_that_keeps_its_pieces(head: bytes) -> None:
    reply = exchanged(saying(head, hang_up=True))
    assert (reply.failure, reply.status, reply.body) == (Failure.CUT, 200, b"part")


@pytest.mark.parametrize(
    "noise",
    [
        b"SSH-2.0-OpenSSH\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_http_is_malformed(noise: bytes) -> None:
    assert exchanged(saying(noise)).failure is Failure.MALFORMED


def test_a_response_without_end_is_refused_at_the_cap() -> None:
    half = chunk(bytes(RESPONSE_BYTES // 2 - len(CHUNKED)))
    reply = exchanged(saying(CHUNKED, 1.0, half, 1.0, half, b"0\r\n\r\n"))
    assert (reply.failure, len(reply.body)) == (None, RESPONSE_BYTES - 2 * len(CHUNKED))
    reply = exchanged(saying(CHUNKED, 1.0, half, 1.0, half, 1.0, chunk(bytes(100))))
    assert reply.failure is Failure.TOO_LARGE
    assert len(reply.body) == RESPONSE_BYTES - 2 * len(CHUNKED), "what came before is kept"


@pytest.mark.parametrize("after", [b"", PLAIN])
def test_bytes_nobody_asked_for_close_the_connection(after: bytes) -> None:
    async def main(clock: Clock) -> tuple[bytes, bool]:
        connection, reader, writer = await pair(clock)
        waiting = asyncio.ensure_future(connection.exchange(REQUEST, NS_PER_S, NS_PER_S, reused=True))
        await reader.readexactly(len(REQUEST))
        writer.write(PLAIN + after)
        body = (await waiting).body
        if not after:
            writer.write(b"late")
        await asyncio.sleep(1)
        writer.transport.abort()
        await asyncio.sleep(0)
        return body, connection.usable

    assert run_virtually(main) == (b"hello", False)


def test_connection_close_is_obeyed() -> None:
    async def main(clock: Clock) -> tuple[bytes, bool]:
        connection, reader, writer = await pair(clock)
        waiting = asyncio.ensure_future(connection.exchange(REQUEST, NS_PER_S, NS_PER_S, reused=True))
        await reader.readexactly(len(REQUEST))
        writer.write(PLAIN.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
        body, usable = (await waiting).body, connection.usable
        writer.transport.abort()
        await asyncio.sleep(0)
        return body, usable

    assert run_virtually(main) == (b"hello", False)


def test_a_cancelled_exchange_closes_its_connection() -> None:
    async def main(clock: Clock) -> tuple[bytes, bool]:
        connection, reader, writer = await pair(clock)
        waiting = asyncio.ensure_future(connection.exchange(REQUEST, NS_PER_S, NS_PER_S, reused=True))
        await reader.readexactly(len(REQUEST))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        seen = await reader.read()
        writer.close()
        await asyncio.sleep(0)
        return seen, connection.usable

    assert run_virtually(main) == (b"", False)


def test_nobody_listening_is_unreachable_and_says_why() -> None:
    async def main() -> None:
        ports: list[int] = []
        server = await listening(ports)
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectError, match="Connection refused") as caught:
            await connect(Address("127.0.0.1", ports[0]), monotonic_ns, 5)
        assert caught.value.failure is Failure.UNREACHABLE

    asyncio.run(main())


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1)
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(pem, pkcs8, plain))
    return paths


def test_tls_is_verified_unless_its_authority_is_named(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(cert, key)

    async def main() -> Reply:
        ports: list[int] = []
        server = await listening(ports, serving)
        with pytest.raises(ConnectError, match="self-signed certificate") as caught:
            await connect(Address("127.0.0.1", ports[0], tls_context()), monotonic_ns, 5)
        assert caught.value.failure is Failure.UNTRUSTED
        connection = await connect(Address("127.0.0.1", ports[0], tls_context(str(cert))), monotonic_ns, 5)
        reply = await connection.exchange(REQUEST, 5 * NS_PER_S, 5 * NS_PER_S, reused=False)
        connection.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)
        return reply

    reply = asyncio.run(main())
    assert (reply.body, reply.reused) == (b"hello", False)


def test_a_connection_that_was_never_opened_is_not_usable() -> None:
    async def main(clock: Clock) -> bool:
        return Connection(clock).usable

    assert not run_virtually(main)
