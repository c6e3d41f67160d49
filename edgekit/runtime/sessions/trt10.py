"""TensorRT 8.5 on: tensors have names, and each is told its address."""

from .trt import Execution, Port, TensorrtSession, load_plan


class AddressExecution(Execution):
    """Tensors by name."""

    name = "tensorrt10"

    def __init__(self, trt, messages, plan, driver):
        runtime, engine, context = load_plan(trt, messages, plan)
        super(AddressExecution, self).__init__(trt, messages, plan, driver)
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            shape = tuple(engine.get_tensor_shape(name))
            # where the data decide, the most that it can be
            nbytes = context.get_max_output_size(name) if -1 in shape else None
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
