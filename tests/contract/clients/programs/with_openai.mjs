// OpenAI's own client for Node.

import OpenAI from 'openai';

const { API_KEY, BASE_URL, MODEL } = process.env;
const client = new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL });
const hello = { model: MODEL, messages: [{ role: 'user', content: 'say hello to me' }] };
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const question = {
  model: MODEL,
  messages: [{ role: 'user', content: 'How is the weather in Paris?' }],
  tools: [{ type: 'function', function: { name: 'weather', parameters } }],
};

const callOf = (message) => {
  const [{ function: called }] = message.tool_calls;
  return { name: called.name, arguments: JSON.parse(called.arguments) };
};

const refused = (by, body) =>
  by.chat.completions.create(body).then(
    () => 0,
    (error) => (error instanceof OpenAI.APIError ? error.status : -1),
  );

const whole = await client.chat.completions.create(hello);
let streamed = '';
for await (const chunk of await client.chat.completions.create({ ...hello, stream: true })) {
  streamed += chunk.choices[0].delta.content ?? '';
}
const asked = (await client.chat.completions.create(question)).choices[0].message;
const result = `22 degrees in ${callOf(asked).arguments.city}`;
const answered = await client.chat.completions.create({
  ...question,
  messages: [...question.messages, asked, { role: 'tool', tool_call_id: asked.tool_calls[0].id, content: result }],
});
const streamedCall = await client.chat.completions.stream(question).finalMessage();
console.log(
  JSON.stringify({
    retried: whole.choices[0].message.content,
    streamed,
    call: callOf(asked),
    answered: answered.choices[0].message.content,
    streamed_call: callOf(streamedCall),
    tokens: whole.usage.total_tokens,
    unknown_model: await refused(client, { ...hello, model: 'nothing' }),
    wrong_key: await refused(client.withOptions({ apiKey: 'ty-wrong' }), hello),
  }),
);
