"""The routes under /openai/v1, which OpenAI's own clients speak."""
