"""Train a model of Ultralytics' and write what it finds: run by `beside_ultralytics` in that environment.

python ultralytics_run.py DATA.YAML MODEL.YAML MINUTES SIDE SEED OUT
"""

import json
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())

import ultralytics.utils
import ultralytics.utils.torch_utils
import yaml


def main(data: str, model: str, minutes: str, side: str, seed: str, out: str) -> None:
    for module in (ultralytics.utils, ultralytics.utils.torch_utils):
        module.NUM_THREADS = os.cpu_count()
    folder = Path(out)
    network = ultralytics.YOLO(model)
    network.train(
        data=data,
        time=float(minutes) / 60,
        imgsz=int(side),
        seed=int(seed),
        pretrained=False,
        val=False,
        plots=False,
        device="cpu",
        project=str(folder.parent),
        name=folder.name,
        exist_ok=True,
    )
    trained = ultralytics.YOLO(folder / "weights" / "last.pt")
    names = yaml.safe_load(Path(data).read_text())["names"]
    rows = []
    for path in sorted((Path(data).parent / "images" / "val").iterdir()):
        found = trained.predict(path, conf=0.001, imgsz=int(side), max_det=300, verbose=False)[0]
        boxes = found.boxes if found.obb is None else found.obb
        shapes = boxes.xyxy if found.obb is None else boxes.xywhr
        for label, score, shape in zip(boxes.cls.tolist(), boxes.conf.tolist(), shapes.tolist()):
            rows.append([path.name, names[int(label)], score, *shape])
    (folder / "found.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
