"""TensorRT 8.5 on: tensors have names, and each is told its address."""

from ..errors import BadInput
from .trt import Execution, Port, TensorrtSession, load_plan


def check_on_device(trt, engine, name):
    """Raise BadInput for a tensor that TensorRT wants in the machine's memory: shapes, and what they are made of."""
    if engine.get_tensor_location(name) == trt.TensorLocation.HOST:
        raise BadInput(
            "the engine's {} is a tensor of the host, from whose values shapes are made; EdgeKit runs engines of one "
            "fixed shape. Export it again: edgekit export RECIPE".format(name)
        )


def most_bytes(context, name):
    """The most that an output can have whose size the data decide. Raises BadInput where TensorRT does not know."""
    nbytes = context.get_max_output_size(name)
    if nbytes < 0:  # an input's shape or profile is open
        raise BadInput(
            "the engine's {} has no upper bound of its size, so no memory can be set aside for it. "
            "Build it again with NMS on the host: edgekit build ARTIFACT --nms host".format(name)
        )
    return nbytes


class AddressExecution(Execution):
    """Tensors by name."""

    name = "tensorrt10"

    def __init__(self, trt, messages, plan, driver):
        runtime, engine, context = load_plan(trt, messages, plan)
        super(AddressExecution, self).__init__(trt, messages, plan, driver)
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            check_on_device(trt, engine, name)
            shape = tuple(engine.get_tensor_shape(name))
            nbytes = most_bytes(context, name) if -1 in shape else None
            port = Port(driver, name, shape, engine.get_tensor_dtype(name).name, nbytes)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self.inputs if is_input else self.outputs)[name] = port
            context.set_tensor_address(name, port.address)
        self.context, self._engine, self._runtime = context, engine, runtime

    def start(self, stream):
        """Put the engine's work on the stream; False when TensorRT refuses."""
        return self.context.execute_async_v3(stream)


class Tensorrt10Session(TensorrtSession):
    execution = AddressExecution


class _Execution11(AddressExecution):
    name = "tensorrt11"


class Tensorrt11Session(TensorrtSession):
    execution = _Execution11
