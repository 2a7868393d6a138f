"""A real HTTP server with a model behind it, which fails where it is told to."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor

from robustbench_lite import Classifier
from robustbench_lite.models import load_model

Predict = Callable[[Tensor], list[Any]]


class OneByOne(torch.nn.Module):
    """digits-cnn, an image at a time: an answer does not depend on the rest of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Classifier = load_model("digits-cnn")

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.model(image[None]) for image in x])


@dataclass
class Service:
    """What a server does, and what it has seen.

    Attributes:
        predict: images (N, C, H, W) to what is answered of each.
        faults: of a call's number, from 0, what goes wrong: a reply of this module, or None.
        protocol: v1 or v2.
        layout: nchw or nhwc.
        port: where it listens.
        calls: how many there were.
        answered: how many images were answered.
        asked: how often each image was answered, by its digest.
        headers: of the last call.
    """

    predict: Predict
    faults: Callable[[int], Callable[[Handler, Service], None] | None] = lambda number: None
    protocol: str = "v1"
    layout: str = "nchw"
    port: int = 0
    calls: int = 0
    answered: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    until: float = 0.0
    early: int = 0

    def address(self, settings: str = "", host: str = "127.0.0.1") -> str:
        """With settings that keep the tests short."""
        more = f"&{settings}" if settings else ""
        return f"http://{host}:{self.port}/predict#backoff=0.001{more}"

    def images(self, body: dict[str, Any]) -> Tensor:
        """(N, C, H, W) of a call."""
        if self.protocol == "v1":
            x = torch.tensor(body["instances"])
        else:
            (tensor,) = body["inputs"]
            assert tensor["datatype"] == "FP32"
            x = torch.tensor(tensor["data"]).reshape(tensor["shape"])
        return x if self.layout == "nchw" else x.permute(0, 3, 1, 2).contiguous()

    def reply(self, rows: list[Any]) -> dict[str, Any]:
        """What is said of the images."""
        if self.protocol == "v1":
            return {"predictions": rows}
        scores = isinstance(rows[0], list)
        shape = [len(rows), len(rows[0])] if scores else [len(rows)]
        data = [value for row in rows for value in row] if scores else rows
        return {"outputs": [{"name": "y", "shape": shape, "datatype": "FP32", "data": data}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the two parts of an answer go out at once
    service: Service
    body: dict[str, Any]

    def do_POST(self) -> None:
        service = self.service
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with service.lock:
            number, service.calls = service.calls, service.calls + 1
            service.headers = dict(self.headers)
            service.early += time.monotonic() < service.until
        fault = service.faults(number)
        if fault is not None:
            fault(self, service)
            return
        x = service.images(self.body)
        with service.lock:
            rows = service.predict(x)
            service.answered += len(x)
            service.asked.update(digest(image) for image in x)
        self.say(200, json.dumps(service.reply(rows)))

    def say(self, status: int, text: str | bytes, **headers: str) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def digest(image: Tensor) -> str:
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """The service at work, on a port of its own."""
    handler = type("Bound", (Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", service.port), handler)
    server.daemon_threads = True
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def saying(status: int, text: str | bytes, **headers: str) -> Callable[[Handler, Service], None]:
    """A fault: this and nothing else."""

    def fault(handler: Handler, service: Service) -> None:
        handler.say(status, text, **headers)

    return fault


def wrong(change: Callable[[list[Any]], list[Any]]) -> Callable[[Handler, Service], None]:
    """A fault: the right answer, changed."""

    def fault(handler: Handler, service: Service) -> None:
        rows = service.predict(service.images(handler.body))
        handler.say(200, json.dumps(service.reply(change(rows))))

    return fault


def slow(handler: Handler, service: Service) -> None:
    """A fault: nothing comes for longer than anybody waits."""
    time.sleep(1.5)
    handler.close_connection = True


def dripping(handler: Handler, service: Service) -> None:
    """A fault: a byte now and then, each in time, but never the end."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        try:
            handler.wfile.write(b" ")
        except OSError:  # nobody waits any more
            break
        time.sleep(0.05)
    handler.close_connection = True


def truncated(handler: Handler, service: Service) -> None:
    """A fault: the connection ends in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"predictions": [[0.1, ')
    handler.close_connection = True


def reset(handler: Handler, service: Service) -> None:
    """A fault: the connection is reset."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    handler.close_connection = True
    handler.rfile, handler.wfile = open("/dev/null", "rb"), open("/dev/null", "wb")  # noqa: SIM115, PTH123 - closed by the handler


def endless(handler: Handler, service: Service) -> None:
    """A fault: an answer larger than any."""
    handler.send_response(200)
    handler.end_headers()
    piece = b" " * 2**20
    try:
        for _ in range(80):
            handler.wfile.write(piece)
    except OSError:  # nobody listens any more
        pass
    handler.close_connection = True


def busy(handler: Handler, service: Service) -> None:
    """A fault: 429, and who comes back before a second has passed is too early."""
    service.until = time.monotonic() + 1
    handler.say(429, "slow down", Retry_After="1")


def scores_of(model: torch.nn.Module) -> Predict:
    return lambda x: model(x).tolist()


def labels_of(model: torch.nn.Module) -> Predict:
    return lambda x: model(x).argmax(1).tolist()
