"""A segmenter as one ONNX file, for onnxruntime and others that need no torch."""
