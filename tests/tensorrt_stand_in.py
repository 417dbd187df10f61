"""A stand-in for TensorRT's Python package and for CUDA's runtime, with the interfaces that their documents give.

What the documents of a version do not have, it has not. "Device" memory is this process's own; each copy must lie
within what was allocated. An "engine" is a JSON: of which ONNX file, and for how many images at least and at most; ONNX
Runtime answers for it.
"""

import ctypes
import json
import types

import numpy as np
import onnxruntime


class Cudart:
    """cudaMalloc and cudaMemcpy, which return an error's number: 0 for none, 1 for cudaErrorInvalidValue."""

    def __init__(self):
        self.memory = {}

    def cudaMalloc(self, pointer, size):  # noqa: N802
        buffer = ctypes.create_string_buffer(size.value)
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.addressof(buffer)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0

    def cudaMemcpy(self, to, source, size, kind):  # noqa: N802
        device = {1: to, 2: source}[kind]  # host to device, device to host
        if device.value not in self.memory or size.value > len(self.memory[device.value]):
            return 1
        ctypes.memmove(to, source, size.value)
        return 0


class Context:
    """What both generations have of IExecutionContext."""

    def __init__(self, engine):
        self.engine, self.shape = engine, None

    def execute_v2(self, bindings):
        engine, count = self.engine, self.shape[0]
        found = dict(zip(engine.order, bindings, strict=True))
        images = np.frombuffer(ctypes.string_at(found.pop("images"), 4 * int(np.prod(self.shape))), np.float32)
        answers = engine.session.run(list(found), {"images": images.reshape(self.shape)})
        for address, answer in zip(found.values(), answers, strict=True):
            assert answer.dtype == np.float32 and len(answer) == count
            ctypes.memmove(address, answer.tobytes(), answer.nbytes)
        return True

    def _set(self, shape):
        fits = self.engine.least <= shape[0] <= self.engine.most and tuple(shape[1:]) == self.engine.shape("images")[1:]
        self.shape = tuple(shape) if fits else self.shape
        return fits


class Context8(Context):
    """Of 8.2: bindings by their numbers."""

    def set_binding_shape(self, binding, shape):
        assert self.engine.order[binding] == "images"
        return self._set(shape)


class Context10(Context):
    """Of 8.5 and newer: tensors by their names."""

    def set_input_shape(self, name, shape):
        assert name == "images"
        return self._set(shape)


class Engine:
    """What makes the two generations of ICudaEngine."""

    def __init__(self, content):
        self.session = onnxruntime.InferenceSession(content["onnx"], providers=["CPUExecutionProvider"])
        ends = [*self.session.get_outputs(), *self.session.get_inputs()]
        self.order, self.ends = [end.name for end in ends], {end.name: end for end in ends}
        self.least, self.most = content["least"], content["most"]

    def shape(self, name):
        """-1 where it is for any number of images; strangeness has a width that ONNX Runtime does not tell."""
        (_, *rest) = self.ends[name].shape
        rest = [2] if name == "strangeness" and isinstance(rest[0], str) else rest
        return (self.most if self.least == self.most else -1, *rest)

    def limits(self, name):
        assert name == "images"
        return [(count, *self.shape(name)[1:]) for count in (self.least, self.least, self.most)]


class Engine8(Engine):
    @property
    def num_bindings(self):
        return len(self.order)

    def get_binding_name(self, index):
        return self.order[index]

    def get_binding_index(self, name):
        return self.order.index(name)

    def get_binding_shape(self, name):
        return self.shape(name)

    def get_binding_dtype(self, name):
        return "DataType.FLOAT"

    def get_profile_shape(self, profile_index, binding):
        assert profile_index == 0
        return self.limits(binding)

    def create_execution_context(self):
        return Context8(self)


class Engine10(Engine):
    @property
    def num_io_tensors(self):
        return len(self.order)

    def get_tensor_name(self, index):
        return self.order[index]

    def get_tensor_shape(self, name):
        return self.shape(name)

    def get_tensor_dtype(self, name):
        return "DataType.FLOAT"

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return self.limits(name)

    def create_execution_context(self):
        return Context10(self)


def make_tensorrt(version):
    """The package of this version."""

    class Logger:
        ERROR = "Severity.ERROR"

        def __init__(self, min_severity):
            assert min_severity == Logger.ERROR

    class Runtime:
        def __init__(self, logger):
            assert isinstance(logger, Logger)

        def deserialize_cuda_engine(self, serialized_engine):
            """None where it cannot."""
            try:
                return {"8": Engine8, "1": Engine10}[version[0]](json.loads(serialized_engine))
            except ValueError:
                return None

    package = types.ModuleType("tensorrt")
    package.__version__, package.Logger, package.Runtime = version, Logger, Runtime
    package.float32 = "DataType.FLOAT"
    return package
