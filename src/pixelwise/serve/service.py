"""Predicts the images of a request: queue, time limit, and clients that go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, TypeVar

from fastapi import Depends, HTTPException
from starlette.requests import Request

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError, MissingPackageError
from pixelwise.inference import Segmentation
from pixelwise.serve.answers import OUTPUTS, Answer, Cleaning
from pixelwise.serve.metrics import Metrics
from pixelwise.serve.models import HostedModel, ModelStore
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.requests import SentImage, decode
from pixelwise.serve.scheduler import CancelledJobError, Job, OverloadedError, Scheduler

Result = TypeVar("Result")

CHECK_SECONDS = 0.25
"""How often a waiting request checks whether its client is still connected."""
CLIENT_GONE = 499  # the status that nginx logs for a client that closed the connection


class Service:
    """What the routes share."""

    def __init__(self, store: ModelStore, options: ServeOptions) -> None:
        self.store, self.options = store, options
        concurrency = max(model.predictor.concurrency for model in store.models)
        # Half of the time limit, because the expected time of a job is only an estimate.
        self.scheduler = Scheduler(
            limit=options.queue, longest_wait=options.timeout / 2, concurrency=concurrency
        )
        self.metrics = Metrics(lambda: self.scheduler.pending)

    def model(self, name: str | None) -> HostedModel:
        """Return a hosted model. Raises HTTPException 404 if it does not exist."""
        model = self.store.get(name)
        if model is None:
            names = ", ".join(model.name for model in self.store.models)
            raise HTTPException(404, f"model {name!r} does not exist: choose from {names}")
        return model

    async def answer(
        self,
        request: Request,
        model: HostedModel,
        image: SentImage,
        outputs: Sequence[str],
        cleaning: Cleaning,
    ) -> dict[str, Answer]:
        """Predict an image, clean its mask, and encode it in each form of `outputs`."""

        def prepare() -> Pixels:
            return decode(image, model.predictor, self.options)

        def finish(result: Segmentation) -> dict[str, Answer]:
            cleaned = cleaning.apply(result)
            return {name: OUTPUTS[name].encode(cleaned) for name in outputs}

        probabilities = any(OUTPUTS[name].needs_probabilities for name in outputs)
        size = len(image.body)
        return await self.run(request, model, prepare, finish, size, probabilities=probabilities)

    async def run(
        self,
        request: Request,
        model: HostedModel,
        prepare: Callable[[], Pixels],
        finish: Callable[[Segmentation], Result],
        size: int,
        *,
        probabilities: bool,
    ) -> Result:
        """Queue a prediction and wait for it.

        Raises:
            HTTPException: 503 if the queue is full, 504 if the time is up, and what `prepare`
                raises.
        """

        def work(job: Job) -> Result:
            start = time.perf_counter()
            pixels = prepare()
            job.check()
            result = finish(
                self.scheduler.predict(model.predictor, job, pixels, probabilities=probabilities)
            )
            self.metrics.images.labels(model.name).inc()
            self.metrics.prediction.labels(model.name).observe(time.perf_counter() - start)
            return result

        try:
            job, future = self.scheduler.submit(work, size=size)
        except OverloadedError as error:
            headers = {"Retry-After": str(error.retry_after)}
            raise HTTPException(503, "the queue is full: try again later", headers) from error
        watcher = asyncio.create_task(_cancel_if_gone(request, job))
        try:
            async with asyncio.timeout(self.options.timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise HTTPException(504, f"no result within {self.options.timeout:g} s") from error
        except CancelledJobError as error:
            raise HTTPException(CLIENT_GONE, "the client closed the connection") from error
        except MissingPackageError as error:
            raise HTTPException(501, str(error)) from error
        except InputError as error:
            raise HTTPException(422, error.problems[0]) from error
        finally:
            job.cancel()  # it may still wait
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
"""The service of the application that handles a request, as a parameter of a route."""


async def _cancel_if_gone(request: Request, job: Job) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(CHECK_SECONDS)
    job.cancel()
