"""OpenAI's /v1/responses: a body to what is asked, events of text to items and their events.

Read from OpenAI's specification 2.3.0 and vLLM 0.33's protocol.
"""
