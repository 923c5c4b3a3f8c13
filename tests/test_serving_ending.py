"""A connection that is used for a websocket as soon as an answer is there."""

import asyncio
import logging
import socket
import threading
import time

import pytest
import uvicorn

from bluesky_filestore.serving.ending import Ended

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


@pytest.fixture
def asked_in_between():
    """The address of a server whose answers end some time after their last byte, and how it is stopped."""
    refused = asyncio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            asyncio.get_running_loop().call_later(0.1, refused.set)
            return
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            for part in (b"al", b"l.", b""):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.wait_for(refused.wait(), 20)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(Ended(app), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)

        def stop():
            server.should_exit = True
            thread.join(30)

        yield bound.getsockname(), stop
        stop()


def test_a_websocket_by_the_same_connection(asked_in_between, caplog):
    """It is answered, and that the answer before is over only then is no error."""
    address, stop = asked_in_between
    caplog.set_level(logging.INFO)
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"all."):
            answer += client.recv(1000)
        client.sendall(UPGRADE)
        assert b" 403 " in client.recv(1000)
        while client.recv(1000):
            pass
    stop()
    assert caplog.text.count('"GET / HTTP/1.1" 200') == 1
    assert "Traceback" not in caplog.text
