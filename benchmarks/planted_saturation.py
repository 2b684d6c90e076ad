"""The errors of an OpenVINO engine with 8-bit weights, as JSON: planted_saturation.py RUN IMAGES [board].

A process of its own, because oneDNN reads its limit once; `planted_faults.py` starts it. With `board`, a child process whose
oneDNN is limited to AVX2 stands for the engine's board.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.core import plugins
from edgekd.core.artifact import open_artifact
from edgekd.core.recipe_loading import stored_recipe
from edgekd.data.splits import open_split
from edgekd.executors.child import Child
from edgekd.layers.measure import HERE, Place, Subject
from edgekd.layers.work import training_images
from edgekd.quantize.schemes import nncf
from edgekd.quantize.stage import Prepared
from edgekd.report.stored import read_report
from edgekd.targets.base import CompileRequest
from tests.layer_faults import errors_in, place_of


def main() -> None:
    """Print the result on the last line of stdout."""
    run, count = Path(sys.argv[1]), int(sys.argv[2])
    recipe, export = stored_recipe(read_report(run).recipe, str(run)), open_artifact(run / "export")
    calibration = Prepared(open_split(recipe, recipe.data.train), range(0, 64, 2), export.spec)
    with TemporaryDirectory() as text:
        folder = Path(text)
        options = nncf.Options(weight_bits=8, bias_correction="none")
        made = nncf.quantize(export.file("model.onnx"), export.spec, calibration, folder, options)
        target = plugins.target("openvino")
        (folder / "engine").mkdir()
        request = CompileRequest(made.model, export.spec, "int8", folder / "engine", target.options())
        built = target.build_engine(request)
        back = nncf.read_back(made.model, export.file("model.onnx"))
        subject = Subject(back.model, export.spec, back.graph, back.is_file, back.placement, back.scales)
        place = place_of(built.engine, export.spec, "openvino")
        places = {HERE: place}
        if sys.argv[3:] == ["board"]:  # oneDNN has read the limit of this process; that of a child is another
            os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
            places["board"] = Place(place.engine, Child())
        found = errors_in("openvino-int8", subject, places, training_images(recipe, count))
    print(json.dumps(found.to_dict()))


if __name__ == "__main__":
    main()
