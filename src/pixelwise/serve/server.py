"""Builds the application and runs it with uvicorn."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

import pixelwise
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions
from pixelwise.serve import kserve, routes
from pixelwise.serve.middleware import JsonFormatter, RequestMiddleware
from pixelwise.serve.models import ModelStore
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.service import Service

# The page needs nothing but its own files; blob: and data: are the user's image and the results.
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def create_app(store: ModelStore, options: ServeOptions | None = None) -> FastAPI:
    """Create the ASGI application, to be run by any server.

    Args:
        store: The models. The application closes it at its end.
        options: Limits and token; host and port are ignored.
    """
    options = options or ServeOptions()
    service = Service(store, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store.watch()
        yield
        service.scheduler.close()
        store.close()

    app = FastAPI(
        title="pixelwise",
        version=pixelwise.__version__,
        summary="Semantic segmentation of images.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads its scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(kserve.router)

    @app.middleware("http")
    async def add_headers(request, call_next):  # type: ignore[no-untyped-def]
        response = await call_next(request)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    app.add_middleware(RequestMiddleware, token=options.token, metrics=service.metrics)
    return app


def run(
    paths: Sequence[Path],
    inference: InferenceOptions,
    options: ServeOptions,
    *,
    started: Callable[[str], None] = print,
) -> None:
    """Serve bundles and exports until SIGTERM or Ctrl-C, then finish the accepted requests.

    Args:
        paths: The bundles and exports; the first is the default model.
        inference: How the networks are run.
        options: Where to listen, and limits.
        started: Called with the URL once requests are accepted.

    Raises:
        InputError: If a file cannot be loaded or the address cannot be used.
    """
    listener = _listen(options)
    with listener:
        store = ModelStore(paths, inference)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        for name in ("pixelwise.serve", "uvicorn.error"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.INFO)
        config = uvicorn.Config(
            create_app(store, options),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=None,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(options.timeout) + 1,
            h11_max_incomplete_event_size=64 << 10,
        )
        host, port = listener.getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends with exit code 0 after a signal, instead of raising the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _listen(options: ServeOptions) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(1024)
    except OSError as error:
        raise InputError(
            f"{options.host}:{options.port}: cannot be used ({error.strerror}): choose another "
            "--host or --port"
        ) from error
    return listener
