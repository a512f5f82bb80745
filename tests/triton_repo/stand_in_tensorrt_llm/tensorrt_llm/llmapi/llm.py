import json
import threading
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tensorrt_llm.executor.request import RequestError
from tensorrt_llm.llmapi.result import (
    CompletionOutput,
    Logits,
    Logprob,
    RequestOutput,
    perf_metrics,
)
from tensorrt_llm.llmapi.sampling import SamplingParams

ARGUMENTS = Path(__file__).with_name("arguments.txt").read_text().split()
STEP_S = 0.001


class LLM:
    def __init__(self, model, **settings):
        for key in settings:
            if key not in ARGUMENTS:
                raise ValueError(f"LLM got invalid argument: {key}")
        self._folder, self._settings = Path(model), settings
        if not self._folder.is_absolute() or not (self._folder / "model.safetensors").is_file():
            raise FileNotFoundError(f"no weights in {model}")
        for folder in (settings.get("lora_config") or {}).get("lora_dir", ()):
            if not (Path(folder) / "adapter_config.json").is_file():
                raise FileNotFoundError(f"no adapter in {folder}")
        self._tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        config = json.loads((self._folder / "config.json").read_text())
        self._eos, self._vocab = config["eos_token_id"], config["vocab_size"]
        self._log = Path.cwd() / "stand_in_calls.jsonl"
        self._down = False
        self._executor = Executor(self)

    def generate_async(
        self,
        inputs,
        sampling_params=None,
        lora_request=None,
        prompt_adapter_request=None,
        streaming=False,
        kv_cache_retention_config=None,
        disaggregated_params=None,
        trace_headers=None,
        _postproc_params=None,
        scheduling_params=None,
        conversation_params=None,
        cache_salt=None,
        priority=0.5,
    ):
        if self._down:
            raise RuntimeError("LLM is shutting down")
        if not isinstance(sampling_params, SamplingParams):
            raise TypeError("sampling_params")
        sampling_params.setup(self._tokenizer, self._eos)
        if isinstance(inputs, str):
            inputs = self._tokenizer.encode(inputs).ids
        if not isinstance(inputs, list) or any(type(each) is not int for each in inputs):
            raise TypeError(f"The inputs must be type str or list of int, but got {inputs!r}")
        if max(inputs) >= self._vocab:
            raise RequestError("Token ID out of range")
        if inputs[0] == CRASH:
            self._down = True
            raise RuntimeError("the executor has failed")
        self._note(sampling_params, lora_request, kv_cache_retention_config, streaming)
        return self._executor.submit(inputs, sampling_params, lora_request, streaming)

    async def get_stats_async(self, timeout=2):
        if not self._settings.get("enable_iter_perf_stats"):
            return
        yield {
            "iter": 7,
            "numActiveRequests": 5,
            "maxNumActiveRequests": 10,
            "numQueuedRequests": 3,
            "gpuMemUsage": 4_000_000_000,
            "kvCacheStats": {"maxNumBlocks": 1000, "usedNumBlocks": 600, "tokensPerBlock": 64},
            "inflightBatchingStats": {"numScheduledRequests": 2, "numCtxTokens": 256},
        }

    def shutdown(self):
        self._executor.close()

    def _note(self, params, lora, retention, streaming):
        fields = {name: getattr(params, name) for name in params.__dataclass_fields__}
        known = {name: each for name, each in fields.items() if each is not None}
        known["adapter"] = lora and lora.lora_name
        known["retention"] = retention and [retention.ranges, retention.decode]
        known["step_by_step"] = streaming
        with self._log.open("a") as log:
            log.write(json.dumps(known, default=str) + "\n")


CRASH = 99
"""A prompt that begins with it brings all down."""


class Executor:
    """All requests a token further at each step, on a thread of its own."""

    def __init__(self, llm):
        self.llm, self.open, self.closed = llm, {}, False
        self.wake = threading.Condition()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def submit(self, prompt, params, lora, streaming):
        outputs = [CompletionOutput(index) for index in range(params.n)]
        result = RequestOutput(self, prompt, outputs, streaming)
        sequences = [Sequence(self.llm, prompt, params, lora, index) for index in range(params.n)]
        with self.wake:
            self.open[result] = sequences
            self.wake.notify()
        return result

    def abort(self, result):
        with self.wake:
            if self.open.pop(result, None) is not None:
                result.give((cancel, True))
                with (Path.cwd() / "stand_in_aborts").open("a") as log:
                    log.write(f"{result.prompt_token_ids[0]}\n")

    def close(self):
        with self.wake:
            self.closed = True
            self.wake.notify()
        self.thread.join()

    def run(self):
        while True:
            with self.wake:
                while not self.open and not self.closed:
                    self.wake.wait()
                if self.closed:
                    return
                for result in list(self.open):
                    self.step(result, self.open[result])
            time.sleep(STEP_S)

    def step(self, result, sequences):
        running = [each for each in sequences if not each.reason]
        for sequence in running:
            sequence.grow()
        whole = all(each.reason for each in sequences)
        if whole:
            del self.open[result]
        if result._streaming:
            for sequence in running:
                last = whole and sequence is running[-1]
                result.give((sequence.snapshot(final=last), last))
        elif whole:
            final = [each.snapshot(final=True) for each in sequences]
            result.give((lambda result: [apply(result) for apply in final], True))


def cancel(result):
    for output in result.outputs:
        output.finish_reason = output.finish_reason or "cancelled"


class Sequence:
    def __init__(self, llm, prompt, params, lora, index):
        self.llm, self.prompt, self.params, self.index = llm, prompt, params, index
        self.stride = 1 + index + (lora.lora_int_id if lora else 0)
        self.ids, self.text, self.reason, self.stop_reason = [], "", None, None
        guide = params.guided_decoding
        self.guide = guide and [*llm._tokenizer.encode(guide.text()).ids, llm._eos]

    def grow(self):
        params, last = self.params, (self.prompt + self.ids)[-1]
        step = len(self.ids)
        token = self.guide[step] if self.guide else (last + self.stride) % self.llm._vocab
        while token in (params.bad_token_ids or ()):
            token = (token + self.stride) % self.llm._vocab
        self.ids.append(token)
        self.text = self.llm._tokenizer.decode(self.ids)
        if token == params.end_id and not params.ignore_eos:
            self.reason = "stop"
        elif token in (params.stop_token_ids or ()):
            self.reason, self.stop_reason = "stop", token
            if not params.include_stop_str_in_output:
                self.ids.pop()
        elif len(self.ids) == params.max_tokens:
            self.reason = "length"
        for stop in params.stop or ():
            if stop in self.text:
                self.text = self.text[: self.text.find(stop)]
                self.reason, self.stop_reason = "stop", stop
        if not self.reason:
            self.text = self.text.rstrip("\ufffd")

    def snapshot(self, *, final):
        ids, text, reason, stop_reason = list(self.ids), self.text, self.reason, self.stop_reason
        params, vocab = self.params, self.llm._vocab

        def apply(result):
            output = result.outputs[self.index]
            output.token_ids = ids
            output.finish_reason, output.stop_reason = reason, stop_reason
            if params.detokenize:
                output.text = text
            if params.logprobs:
                output.logprobs = [{each: Logprob(-each / 1000, 1), -1: None} for each in ids]
            if params.return_generation_logits:
                output.generation_logits = Logits(np.eye(vocab, dtype=np.float32)[ids])
            if params.return_context_logits:
                result.context_logits = Logits(np.eye(vocab, dtype=np.float32)[self.prompt])
            if params.return_perf_metrics and reason:
                output.request_perf_metrics = perf_metrics(len(ids))

        return apply
