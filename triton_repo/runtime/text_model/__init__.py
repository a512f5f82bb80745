"""The models that take text and give text, `ensemble` and `tensorrt_llm_bls`: one program."""
