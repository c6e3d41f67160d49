"""Detectors that were trained elsewhere: from any ONNX file to an artifact with EdgeKit's output contract."""
