"""/v1/responses: its handlers, and the store that later turns go on from."""

from server.responses.handlers import Responses as Responses
