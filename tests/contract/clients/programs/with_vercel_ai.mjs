// Vercel's AI SDK with its provider for servers that speak OpenAI's protocol.

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, RetryError, generateText, jsonSchema, streamText, tool } from 'ai';

const { API_KEY, BASE_URL, MODEL } = process.env;
const provider = (apiKey) => createOpenAICompatible({ name: 'tokenyard', apiKey, baseURL: BASE_URL });
const model = provider(API_KEY)(MODEL);
const prompt = 'say hello to me';
const inputSchema = jsonSchema({ type: 'object', properties: { city: { type: 'string' } }, required: ['city'] });
const tools = { weather: tool({ description: 'Tells the weather of a city.', inputSchema }) };
const question = [{ role: 'user', content: 'How is the weather in Paris?' }];

const callOf = ([call]) => ({ name: call.toolName, arguments: call.input });

const refused = (by) =>
  generateText({ model: by, prompt }).then(
    () => 0,
    (error) => {
      const cause = RetryError.isInstance(error) ? error.lastError : error;
      return APICallError.isInstance(cause) ? cause.statusCode : -1;
    },
  );

const whole = await generateText({ model, prompt });
let streamed = '';
for await (const text of streamText({ model, prompt }).textStream) {
  streamed += text;
}
const asked = await generateText({ model, messages: question, tools });
const { toolCallId, toolName, input } = asked.toolCalls[0];
const output = { type: 'text', value: `22 degrees in ${input.city}` };
const answered = await generateText({
  model,
  tools,
  messages: [
    ...question,
    ...asked.response.messages,
    { role: 'tool', content: [{ type: 'tool-result', toolCallId, toolName, output }] },
  ],
});
const streamedCalls = await streamText({ model, messages: question, tools }).toolCalls;
console.log(
  JSON.stringify({
    retried: whole.text,
    streamed,
    call: callOf(asked.toolCalls),
    answered: answered.text,
    streamed_call: callOf(streamedCalls),
    tokens: whole.usage.totalTokens,
    unknown_model: await refused(provider(API_KEY)('nothing')),
    wrong_key: await refused(provider('ty-wrong')(MODEL)),
  }),
);
