"""Architectures that TensorRT-LLM runs with its PyTorch backend and never had an engine for.

Source: TensorRT-LLM 1.2's `MODEL_MAP` (engines) against its list of supported PyTorch models.
"""

from __future__ import annotations

LLMAPI_ONLY = frozenset(
    {
        "DeepseekV3ForCausalLM",
        "DeepseekV32ForCausalLM",
        "Exaone4ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Gemma3nForConditionalGeneration",
        "Glm4MoeForCausalLM",
        "GptOssForCausalLM",
        "KimiK2ForCausalLM",
        "Llama4ForConditionalGeneration",
        "NemotronHForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
    }
)

UNBUILDABLE = {
    "DeepseekV2ForCausalLM": "its attention layer hands on a weight, fused_q_proj, that it lacks",
}
"""Architectures that `MODEL_MAP` has, and whose class fails when its network is built.

DeepSeek V2: TensorRT-LLM 1.1 and 1.2, `layers/attention.py`: DeepseekV2Attention makes
`k_b_proj_trans` where it made `fused_q_proj` before, and its `forward` still asks for the latter,
which `gpt_attention` doesn't take any more.
"""

_HEAD = "it ends in a head for another task than embeddings"
ENCODERS = {
    **dict.fromkeys(
        (
            "BertForMaskedLM",
            "BertForQuestionAnswering",
            "BertForSequenceClassification",
            "BertForTokenClassification",
            "RobertaForMaskedLM",
            "RobertaForQuestionAnswering",
            "RobertaForSequenceClassification",
            "XLMRobertaForMaskedLM",
            "XLMRobertaForSequenceClassification",
        ),
        _HEAD,
    ),
    **dict.fromkeys(
        (
            "AlbertModel",
            "DebertaModel",
            "DebertaV2Model",
            "DistilBertModel",
            "ElectraModel",
            "GteModel",
            "JinaBertModel",
            "MPNetModel",
            "ModernBertModel",
            "NewModel",
            "NomicBertModel",
            "T5EncoderModel",
        ),
        "it is built otherwise than BERT",
    ),
}
"""Encoders that nothing here computes, and why."""
