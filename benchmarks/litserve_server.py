"""A detector behind LitServe, for `benchmarks.serving`.

python -m benchmarks.litserve_server runs/bccd --workers 1 --port 8001
"""

import argparse

import litserve
import torch
from fastapi import Request

from benchmarks.serving import BATCH, WAIT
from boxwright.cli.options import views_of
from boxwright.config.experiment import View
from boxwright.data.images import decode_upload, open_upload
from boxwright.serving.limits import Limits
from boxwright.serving.serve import open_served


class Detecting(litserve.LitAPI):
    """Pictures of forms to boxes, by the code that `boxwright serve` runs."""

    def __init__(self, checkpoint: str, threads: int, views: tuple[View, ...] | None):
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT)
        self.checkpoint, self.threads, self.views = checkpoint, threads, views

    def setup(self, device: str) -> None:
        torch.set_num_threads(self.threads)
        self.served = open_served(self.checkpoint, None, None, None, Limits(), self.views)

    def decode_request(self, request: Request) -> tuple:
        pixels = decode_upload(open_upload(request["images"].file.read()))
        return (pixels.shape[1], pixels.shape[0]), self.served.predictor.fitted(pixels)

    def batch(self, inputs: list) -> list:
        return inputs

    def predict(self, inputs: list) -> list:
        found = self.served._find([sample for _, sample in inputs])
        return [(size, one) for (size, _), one in zip(inputs, found)]

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: tuple) -> dict:
        size, found = output
        boxes = self.served.boxes(found.rows, size, None)
        return {"images": [{"width": size[0], "height": size[1], "boxes": boxes}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--views", type=views_of)
    given = parser.parse_args()
    detecting = Detecting(given.checkpoint, max(1, torch.get_num_threads() // given.workers), given.views)
    server = litserve.LitServer(detecting, "cpu", workers_per_device=given.workers, timeout=60)
    server.run(host="127.0.0.1", port=given.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
