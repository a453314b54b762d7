"""OpenAI's Responses API, translated to chat completions on the way in and from them on the way out."""
