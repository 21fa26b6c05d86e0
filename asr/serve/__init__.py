"""A service for many callers: OpenAI's transcription API, streams by WebSocket, a page, and Wyoming."""
