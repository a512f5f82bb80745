"""The formats in which models call functions, and what tells that a model has one of them.

Sources: the chat templates that the models are published with, and vLLM's and SGLang's parsers.
The first row that a template answers to is its format.
"""

from __future__ import annotations

from dataclasses import replace

from server.text.tools import (
    deepseek,
    gemma,
    harmony,
    json_calls,
    kimi,
    minimax_m3,
    mistral,
    pythonic,
    tagged,
)
from server.text.tools.format import ToolFormat

_QWEN_END = "</tool_call>"
_PHI_END = "<|/tool_call|>"
_NEMOTRON_END = "</TOOLCALL>"
_SEED_END = "</seed:tool_call>"
_MINIMAX_END = "</tool_calls>"
_LLAMA_END = "<|python_end|>"
_LFM_END = "<|tool_call_end|>"
_OLMO_END = "</function_calls>"
_COHERE_END = "<|END_ACTION|>"
_APERTUS_END = "<|tools_suffix|>"
_LONGCAT_END = "</longcat_tool_call>"
_INTERN_MARKS = ("<|action_start|>", "<|plugin|>", "<|action_end|>")
_GEMMA_QUOTE, _GEMMA_END = '<|"|>', "<tool_call|>"
_FUNCTION_GEMMA_QUOTE, _FUNCTION_GEMMA_END = "<escape>", "<end_function_call>"
_DSML_V32, _DSML_V4 = "function_calls", "tool_calls"

HERMES = ToolFormat(
    name="hermes",
    starts=("<tool_call>",),
    ends=(_QWEN_END,),
    read=json_calls.reader(ends=(_QWEN_END,)),
    told_by=(("<tool_call>",),),
    peers=("qwen", "qwen25", "granite4"),
    in_reasoning=True,
)
"""The most common, and that of models whose template knows none."""

_DEEPSEEK = ToolFormat(
    name="deepseek",
    starts=(deepseek.CALLS_BEGIN, deepseek.CALL_BEGIN),
    ends=(deepseek.SEPARATOR, deepseek.CALL_END, deepseek.CALLS_END),
    read=deepseek.read,
    told_by=((deepseek.CALL_BEGIN,),),
    peers=("deepseek_v31", "deepseekv31"),
    how_to_call=deepseek.HOW_TO_CALL,
)

TOOL_FORMATS = (
    replace(
        _DEEPSEEK,
        name="deepseek_v3",
        told_by=((deepseek.CALL_BEGIN, "```json"),),
        peers=("deepseekv3",),
        how_to_call=deepseek.FENCED_HOW_TO_CALL,
    ),
    _DEEPSEEK,
    ToolFormat(
        name="deepseek_v32",
        starts=(f"<{tagged.DSML}{_DSML_V32}>",),
        ends=(tagged.DSML,),
        read=tagged.reader(tagged.dsml(_DSML_V32)),
        told_by=((tagged.DSML, f"{_DSML_V32}>"),),
        peers=("deepseekv32",),
        in_reasoning=True,
    ),
    ToolFormat(
        name="deepseek_v4",
        starts=(f"<{tagged.DSML}{_DSML_V4}>",),
        ends=(tagged.DSML,),
        read=tagged.reader(tagged.dsml(_DSML_V4)),
        told_by=((tagged.DSML, f"{_DSML_V4}>"),),
        peers=("deepseekv4",),
        in_reasoning=True,
    ),
    ToolFormat(
        name="kimi_k2",
        starts=(kimi.CALLS_BEGIN, kimi.CALL_BEGIN),
        ends=(kimi.ARGUMENTS, kimi.CALL_END, kimi.CALLS_END),
        read=kimi.read,
        ids="kimi",
        told_by=((kimi.CALL_BEGIN,), ("<|im_middle|>", "tool_declare")),
        in_reasoning=True,
    ),
    ToolFormat(
        name="harmony",
        ends=harmony.MARKERS,
        bare=True,
        read=harmony.read,
        told_by=((f"{harmony.CHANNEL}commentary",),),
        peers=("openai", "gpt-oss"),
    ),
    ToolFormat(
        name="mistral",
        starts=(mistral.START,),
        ends=(mistral.ARGUMENTS, mistral.CALL_ID),
        read=mistral.read,
        ids="mistral",
        told_by=((mistral.START,),),
    ),
    ToolFormat(
        name="seed_oss",
        starts=("<seed:tool_call>",),
        ends=(_SEED_END,),
        read=tagged.reader(tagged.equals(_SEED_END)),
        told_by=(("<seed:tool_call>",),),
        in_reasoning=True,
    ),
    ToolFormat(
        name="qwen3_coder",
        starts=("<tool_call>",),
        ends=(_QWEN_END,),
        read=tagged.reader(tagged.equals(_QWEN_END)),
        told_by=(("<tool_call>", "<function=", "<parameter="),),
        peers=("qwen3_xml", "mimo", "step3p5"),
        in_reasoning=True,
    ),
    ToolFormat(
        name="minimax_m3",
        starts=(minimax_m3.START,),
        ends=(minimax_m3.MARK,),
        read=minimax_m3.read,
        told_by=((minimax_m3.MARK,),),
        peers=("minimax-m3",),
    ),
    ToolFormat(
        name="hy_v3",
        starts=(tagged.HUNYUAN.end.replace("/", ""),),
        ends=tagged.HUNYUAN.marks,
        read=tagged.reader(tagged.HUNYUAN),
        told_by=(("<tool_calls{}>", "<tool_sep{}>"),),
        peers=("hunyuan",),
    ),
    ToolFormat(
        name="glm45",
        starts=("<tool_call>",),
        ends=(_QWEN_END,),
        read=tagged.reader(tagged.GLM),
        told_by=(("<tool_call>", "<arg_key>"),),
        peers=("glm47", "glm", "poolside_v1", "ling3", "spark25"),
        in_reasoning=True,
    ),
    ToolFormat(
        name="minimax_m2",
        starts=("<minimax:tool_call>",),
        ends=(tagged.MINIMAX.end,),
        read=tagged.reader(tagged.MINIMAX),
        told_by=(("<minimax:tool_call>", "<invoke name="),),
        peers=("minimax-m2",),
    ),
    ToolFormat(
        name="minimax_m1",
        starts=("<tool_calls>",),
        ends=(_MINIMAX_END,),
        read=json_calls.reader(ends=(_MINIMAX_END,), separator=""),
        told_by=(("<tool_calls>",),),
        peers=("minimax", "hunyuan_a13b", "jamba"),
    ),
    ToolFormat(
        name="phi4",
        # the last is how it is shown its earlier calls, which its template has no place for
        starts=("functools", "<|tool_call|>", "<tool_call>"),
        ends=(_PHI_END, _QWEN_END),
        read=json_calls.reader(ends=(_PHI_END, _QWEN_END)),
        told_by=(("functools[",), (_PHI_END,), ("<|tool|>", "<|/tool|>")),
        peers=("phi4_mini_json",),
    ),
    ToolFormat(
        name="granite",
        starts=("<|tool_call|>", "<tool_call>"),
        ends=(_QWEN_END,),
        read=json_calls.reader(ends=(_QWEN_END,)),
        told_by=(("<|tool_call|>",),),
    ),
    HERMES,
    ToolFormat(
        name="longcat",
        starts=("<longcat_tool_call>",),
        ends=(_LONGCAT_END,),
        read=json_calls.reader(ends=(_LONGCAT_END,)),
        told_by=(("<longcat_tool_call>",),),
    ),
    ToolFormat(
        name="gemma4",
        starts=("<|tool_call>",),
        ends=(_GEMMA_QUOTE, _GEMMA_END),
        read=gemma.reader(quote=_GEMMA_QUOTE, end=_GEMMA_END),
        told_by=(("<|tool_call>call:",),),
        in_reasoning=True,
    ),
    ToolFormat(
        name="functiongemma",
        starts=("<start_function_call>",),
        ends=(_FUNCTION_GEMMA_QUOTE, _FUNCTION_GEMMA_END),
        read=gemma.reader(quote=_FUNCTION_GEMMA_QUOTE, end=_FUNCTION_GEMMA_END),
        told_by=(("<start_function_call>",),),
    ),
    ToolFormat(
        name="cohere",
        starts=("<|START_ACTION|>",),
        ends=(_COHERE_END,),
        read=json_calls.reader(ends=(_COHERE_END,)),
        told_by=(("<|START_ACTION|>",),),
        peers=("cohere_command3", "cohere_command4"),
    ),
    ToolFormat(
        name="apertus",
        starts=("<|tools_prefix|>",),
        ends=(_APERTUS_END,),
        read=json_calls.keyed(end=_APERTUS_END),
        told_by=(("<|tools_prefix|>",),),
        peers=("apertus2509",),
        in_reasoning=True,
    ),
    ToolFormat(
        name="internlm",
        starts=("<|action_start|><|plugin|>",),
        ends=_INTERN_MARKS,
        read=json_calls.reader(ends=(_INTERN_MARKS[-1],)),
        told_by=(("<|action_start|>", "<|plugin|>"),),
        peers=("interns1",),
    ),
    ToolFormat(
        name="gigachat3",
        starts=("<|function_call|>", "function call<|role_sep|>"),
        ends=("<|role_sep|>",),
        read=json_calls.reader(),
        told_by=(("<|function_call|>",), ("function call", "<|role_sep|>")),
    ),
    ToolFormat(
        name="granite-20b-fc",
        starts=("<function_call>",),
        read=json_calls.reader(),
        told_by=(("<function_call>",),),
    ),
    ToolFormat(
        name="minicpm5",
        starts=(tagged.MINICPM.call,),
        read=tagged.reader(tagged.MINICPM, begun=True),
        told_by=((tagged.MINICPM.call, tagged.MINICPM.key),),
    ),
    ToolFormat(
        name="lfm2",
        starts=("<|tool_call_start|>",),
        ends=(_LFM_END,),
        read=pythonic.reader(end=_LFM_END),
        told_by=(("<|tool_call_start|>",), ("<|tool_list_start|>",), ("List of tools: [",)),
    ),
    ToolFormat(
        name="olmo3",
        starts=("<function_calls>",),
        ends=(_OLMO_END,),
        read=pythonic.lines(end=_OLMO_END),
        told_by=(("<function_calls>",),),
    ),
    ToolFormat(
        name="nemotron",
        starts=("<TOOLCALL>",),
        ends=(_NEMOTRON_END,),
        read=json_calls.reader(ends=(_NEMOTRON_END,)),
        told_by=(("<TOOLCALL>",),),
        peers=("nemotron_json",),
    ),
    ToolFormat(
        name="pythonic",
        starts=("<|python_start|>",),
        ends=(_LLAMA_END,),
        bare=True,
        read=pythonic.reader(end=_LLAMA_END),
        told_by=(("[func_name1(",),),
        peers=("llama4_pythonic",),
    ),
    ToolFormat(
        name="llama3_json",
        starts=("<|python_tag|>",),
        bare=True,
        read=json_calls.reader(separator=";", known_only=True),
        told_by=(("<|python_tag|>",), ('"parameters": dictionary of argument name',)),
        not_by=("<function=",),
        peers=("llama3", "llama4_json", "xlam"),
    ),
)
