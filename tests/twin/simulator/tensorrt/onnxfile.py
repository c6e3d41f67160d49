"""Just enough of ONNX's protobuf for the simulated parser: nodes, inputs and outputs. Field numbers: onnx.proto."""

UINT8 = 2


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """(field number, value) of a message: numbers as int, everything with a length as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _all(data, wanted):
    return [value for number, value in fields(data) if number == wanted]


def _one(data, wanted, default):
    return (_all(data, wanted) or [default])[-1]


def read_graph(content):
    """{"nodes": [{name, kind, inputs, outputs}], "inputs": [{name, type, shape}], "outputs": the same}."""
    graph = _one(bytes(content), 7, b"")
    constants = {_one(tensor, 8, b"").decode() for tensor in _all(graph, 5)}
    nodes = [_node(data) for data in _all(graph, 1)]
    inputs = [end for end in map(_end, _all(graph, 11)) if end["name"] not in constants]
    return {"nodes": nodes, "inputs": inputs, "outputs": [_end(data) for data in _all(graph, 12)]}


def _node(data):
    return {
        "name": _one(data, 3, b"").decode(),
        "kind": _one(data, 4, b"").decode(),
        "inputs": [value.decode() for value in _all(data, 1)],
        "outputs": [value.decode() for value in _all(data, 2)],
    }


def _end(data):
    tensor = _one(_one(data, 2, b""), 1, b"")
    dimensions = _all(_one(tensor, 2, b""), 1)
    shape = [_one(dimension, 1, -1) for dimension in dimensions]
    return {"name": _one(data, 1, b"").decode(), "type": _one(tensor, 1, 0), "shape": shape}
