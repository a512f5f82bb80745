"""Target `tensorrt-llm`: a checkpoint becomes TensorRT engines, compiled by `trtllm-build`."""
