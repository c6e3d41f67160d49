"""TensorRT 8.0 to 8.4 (JetPack 4): tensors are bindings, numbered and handed over as one list of addresses."""

from .trt import Execution, Port, TensorrtSession, load_plan


class BindingsExecution(Execution):
    """Bindings by number."""

    name = "tensorrt8"

    def __init__(self, trt, messages, plan, driver):
        runtime, engine, context = load_plan(trt, messages, plan)
        super(BindingsExecution, self).__init__(trt, messages, plan, driver)
        self._addresses = []  # type: list[int]
        for i in range(engine.num_bindings):
            name = engine.get_binding_name(i)
            port = Port(driver, name, engine.get_binding_shape(i), engine.get_binding_dtype(i).name)
            (self.inputs if engine.binding_is_input(i) else self.outputs)[name] = port
            self._addresses.append(port.address)
        # the context needs the engine, the engine the runtime
        self.context, self._engine, self._runtime = context, engine, runtime

    def start(self, stream):
        """Put the engine's work on the stream; False when TensorRT refuses."""
        return self.context.execute_async_v2(self._addresses, stream)


class Tensorrt8Session(TensorrtSession):
    execution = BindingsExecution
