"""A model as it is, its weights in a file beside it: ONNX Runtime maps those instead of copying them."""

from pathlib import Path

import onnx

from .reader import ModelFile, own_name
from .tensors import all_tensors

# Where weights begin: a multiple of a memory page, so that they can be mapped.
_PAGE = 4096


def write_mapped(model: ModelFile, path: Path, proto: onnx.ModelProto | None = None) -> Path:
    """Write a model to the new file `path`, weights of its main graph to `<path>.mapped.data`; return that file.

    Nothing else is changed. `proto` takes the place of the model's own: the same, but for outputs, say. Data that lie
    in external files of the model are copied, too.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto or model.proto)
    data = path.with_name(f"{path.name}.mapped.data")
    with data.open("xb") as file:
        for tensor in copy.graph.initializer:
            content = model.content(tensor)
            if content is None:
                continue
            del tensor.external_data[:]
            offset = -(-file.tell() // _PAGE) * _PAGE
            file.seek(offset)
            file.write(content)
            for key, value in (("location", data.name), ("offset", offset), ("length", len(content))):
                tensor.external_data.add(key=key, value=str(value))
    for tensor in all_tensors(copy):
        inside = {entry.value for entry in tensor.external_data if entry.key == "location"} - {data.name}
        content = model.content(tensor) if inside else None
        if content is not None:
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = bytes(content)
    model.let_go()
    onnx.save_model(copy, path)
    return data


def is_mapped(model: ModelFile) -> bool:
    """Tell whether the weights of a model lie in files beside it already."""
    own = own_name(model.path)
    entries = (entry for tensor in model.proto.graph.initializer for entry in tensor.external_data)
    locations = {entry.value for entry in entries if entry.key == "location"}
    return own not in locations
