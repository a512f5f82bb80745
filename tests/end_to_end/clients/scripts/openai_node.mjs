// The official Node client. Prints what it saw of each feature as JSON, as reporting.py does.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const urls = JSON.parse(process.argv[2]);
const MODEL = "smollm2", ENCODER = "minilm", CALLER = "hermes";
const FRANCE = "What is the capital of France?";
const WEATHER = "What is the weather in Paris?";
const STEPS = "What is the weather in Paris, and after that in London?";
const TWO_CITIES = "What is the weather in Paris and London?";
const City = z.object({ name: z.enum(["Paris", "London", "Rome"]), capital: z.boolean() });
const FUNCTION = {
  name: "get_weather",
  description: "The weather in a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string", enum: ["Paris", "London", "Rome"] } },
    required: ["city"],
    additionalProperties: false,
  },
};
const TOOLS = [{ type: "function", function: FUNCTION }];
const NAMED = { type: "function", function: { name: FUNCTION.name } };
const user = (content) => [{ role: "user", content }];
const ASKED = { model: MODEL, messages: user(FRANCE), temperature: 0 };

const live = new OpenAI({ baseURL: urls.live, apiKey: "none", maxRetries: 0 });
const scripted = (apiKey = urls.key, maxRetries = 0) =>
  new OpenAI({ baseURL: urls.scripted, apiKey, maxRetries });
const calls = (message) => message.tool_calls.map((c) => [c.function.name, c.function.arguments]);
const failure = async (call) => {
  try {
    await call;
    return { error: "none", status: null };
  } catch (error) {
    return { error: error.constructor.name, status: error.status ?? null };
  }
};

const freed = async (name) => {
  const none = `trtbuild_requests_in_flight{model="${name}"} 0.0`;
  for (let turn = 0; turn < 600; turn++) {
    const metrics = await (await fetch(urls.scripted.replace("/v1", "/metrics"))).text();
    if (metrics.split("\n").includes(none)) return true;
    await new Promise((resume) => setTimeout(resume, 100));
  }
  return false;
};

const features = {
  async chat() {
    const { choices: [choice], usage } = await live.chat.completions.create(ASKED);
    return {
      text: choice.message.content, finish: choice.finish_reason, total: usage.total_tokens,
    };
  },

  async stream() {
    const options = { stream: true, stream_options: { include_usage: true } };
    const pieces = [];
    let finish, total;
    for await (const chunk of await live.chat.completions.create({ ...ASKED, ...options })) {
      const [choice] = chunk.choices;
      if (choice?.delta.content) pieces.push(choice.delta.content);
      finish = choice?.finish_reason ?? finish;
      total = chunk.usage?.total_tokens ?? total;
    }
    return { text: pieces.join(""), finish, total };
  },

  async tool_auto() {
    const asked = { model: CALLER, messages: user(TWO_CITIES), tools: TOOLS };
    const { choices: [choice] } = await scripted().chat.completions.create(asked);
    return { calls: calls(choice.message), finish: choice.finish_reason };
  },

  async tool_auto_stream() {
    const asked = { model: CALLER, messages: user(TWO_CITIES), tools: TOOLS };
    const { choices: [choice] } =
      await scripted().chat.completions.stream(asked).finalChatCompletion();
    return { calls: calls(choice.message), finish: choice.finish_reason };
  },

  async tool_result() {
    const weather = { ...FUNCTION, parse: JSON.parse, function: ({ city }) => `sunny in ${city}` };
    const runner = scripted().chat.completions.runTools({
      model: CALLER, messages: user(WEATHER), tools: [{ type: "function", function: weather }],
    });
    return { text: await runner.finalContent() };
  },

  async tool_loop() {
    const cities = [];
    const weather = {
      ...FUNCTION, parse: JSON.parse,
      function: ({ city }) => { cities.push(city); return `sunny in ${city}`; },
    };
    const runner = scripted().chat.completions.runTools({
      model: CALLER, messages: user(STEPS), tools: [{ type: "function", function: weather }],
      stream: true,
    });
    const text = await runner.finalContent();
    return { cities, text };
  },

  async tool_required() {
    const forced = { tools: TOOLS, tool_choice: "required", parallel_tool_calls: false };
    const { choices: [choice] } = await live.chat.completions.create({ ...ASKED, ...forced });
    return { calls: calls(choice.message) };
  },

  async tool_named() {
    const asked = { ...ASKED, tools: TOOLS, tool_choice: NAMED };
    const { choices: [choice] } = await live.chat.completions.stream(asked).finalChatCompletion();
    return { calls: calls(choice.message) };
  },

  async schema() {
    const asked = { ...ASKED, response_format: zodResponseFormat(City, "city") };
    const whole = await live.chat.completions.parse(asked);
    const streamed = await live.chat.completions.stream(asked).finalChatCompletion();
    return [whole, streamed].map((answer) => answer.choices[0].message.parsed);
  },

  async log_probs() {
    const asked = { ...ASKED, logprobs: true, top_logprobs: 3 };
    const { choices: [{ logprobs: { content } }] } = await live.chat.completions.create(asked);
    return {
      text: content.map((token) => token.token).join(""),
      tops: [...new Set(content.map((token) => token.top_logprobs.length))],
      greedy: content.every((t) => t.logprob <= 0 && t.logprob === t.top_logprobs[0].logprob),
    };
  },

  async several() {
    const asked = { model: MODEL, messages: user(FRANCE), n: 3, max_tokens: 4 };
    return (await live.chat.completions.create(asked)).choices.map((choice) => choice.index);
  },

  async embeddings() {
    const input = ["a cat", "a kitten", "the stock market"];
    const packed = await live.embeddings.create({ model: ENCODER, input });
    const plain = await live.embeddings.create({ model: ENCODER, input, encoding_format: "float" });
    return {
      vectors: packed.data.map((item) => item.embedding),
      alike: packed.data.every((item, n) =>
        item.embedding.every((x, at) => Math.abs(x - plain.data[n].embedding[at]) < 1e-6)),
    };
  },

  async responses() {
    const asked = { model: MODEL, input: FRANCE, temperature: 0 };
    const first = await live.responses.create(asked);
    const second = await live.responses.create({
      model: MODEL, input: "And of Italy?", previous_response_id: first.id, max_output_tokens: 16,
    });
    const kept = await live.responses.retrieve(second.id);
    const roles = [];
    for await (const item of live.responses.inputItems.list(second.id, { order: "asc" }))
      roles.push(item.role);
    await live.responses.delete(first.id);
    return {
      text: first.output_text,
      kept: kept.output_text === second.output_text,
      roles,
      deleted: await failure(live.responses.retrieve(first.id)),
    };
  },

  async responses_stream() {
    const asked = { model: MODEL, input: FRANCE, temperature: 0 };
    const kinds = [];
    const stream = live.responses.stream(asked);
    for await (const event of stream) kinds.push(event.type);
    const answer = await stream.finalResponse();
    return { text: answer.output_text, first: kinds[0], last: kinds.at(-1) };
  },

  async responses_schema() {
    const text = { format: zodTextFormat(City, "city") };
    const asked = { model: MODEL, input: FRANCE, temperature: 0, text };
    return [(await live.responses.parse(asked)).output_parsed];
  },

  async responses_tools() {
    const tools = [{ type: "function", strict: true, ...FUNCTION }];
    const forced = await live.responses.create({
      model: MODEL, input: WEATHER, tools, tool_choice: "required", temperature: 0,
    });
    const free = await scripted().responses.create({ model: CALLER, input: WEATHER, tools });
    const [call] = free.output.filter((item) => item.type === "function_call");
    const result = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
    const answer = await scripted().responses.create({
      model: CALLER, input: [result], previous_response_id: free.id, tools,
    });
    return {
      forced: forced.output.filter((item) => item.type === "function_call").map((c) => c.name),
      call: [call.name, call.arguments],
      text: answer.output_text,
    };
  },

  async errors() {
    const ask = (client, fields) => client.chat.completions.create(fields);
    const free = { model: CALLER, messages: user(FRANCE) };
    return {
      model: await failure(ask(live, { ...ASKED, model: "gpt-4" })),
      field: await failure(ask(live, { ...ASKED, temperature: 9 })),
      long: await failure(ask(live, { model: MODEL, messages: user("word ".repeat(3000)) })),
      route: await failure(live.images.generate({ model: MODEL, prompt: "a cat" })),
      key: await failure(ask(scripted("sk-wrong"), free)),
      share: await failure(ask(scripted(urls.narrow_key), free)),
    };
  },

  async faults() {
    const ask = (model) =>
      scripted().chat.completions.create({ model, messages: user(FRANCE) });
    return {
      full: await failure(ask("always-overloaded")),
      away: await failure(ask("always-unready")),
    };
  },

  async retries() {
    const texts = [];
    for (const model of ["overloaded", "unready"]) {
      const asked = { model, messages: user(WEATHER) };
      const answer = await scripted(urls.key, 2).chat.completions.create(asked);
      texts.push(answer.choices[0].message.content);
    }
    return texts;
  },

  async raw() {
    const asked = { model: CALLER, messages: user(FRANCE) };
    const headers = { "X-Request-Id": "ours-7" };
    const { data, response, request_id } =
      await scripted().chat.completions.create(asked, { headers }).withResponse();
    const streamed =
      await scripted().chat.completions.create({ ...asked, stream: true }, { headers }).asResponse();
    const lines = (await streamed.text()).split("\n").filter(Boolean);
    return {
      ids: [request_id, streamed.headers.get("x-request-id")],
      time: response.headers.get("openai-processing-ms"),
      text: data.choices[0].message.content,
      last: lines.at(-1),
    };
  },

  async timeout() {
    const asked = { model: "silent", messages: user(FRANCE) };
    const seen = await failure(scripted().chat.completions.create(asked, { timeout: 500 }));
    return { ...seen, freed: await freed("silent") };
  },

  async left() {
    const asked = { model: "silent", messages: user(FRANCE), stream: true };
    let text;
    for await (const chunk of await scripted().chat.completions.create(asked))
      if ((text = chunk.choices[0].delta.content)) break;
    return { text, freed: await freed("silent") };
  },

  async broken() {
    const asked = { model: "broken", messages: user(FRANCE), stream: true };
    const pieces = [];
    try {
      for await (const chunk of await scripted().chat.completions.create(asked))
        pieces.push(chunk.choices[0].delta.content ?? "");
    } catch (error) {
      return { pieces, error: error.error.message, code: error.code };
    }
    return { pieces };
  },
};

const seen = Object.entries(features).map(async ([name, feature]) => [
  name,
  await feature().catch((error) => ({ failed: String(error.stack) })),
]);
console.log(JSON.stringify(Object.fromEntries(await Promise.all(seen))));
