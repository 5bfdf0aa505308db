"""The OpenAPI description of the door's endpoints, served at /openapi.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import GUARD_VERSION
from .model_names import offered

PATH = "/openapi.json"
_ERROR = {"$ref": "#/components/schemas/Error"}
#: Status -> what it means. The codes in the bodies are in the documentation.
_ERRORS = {
    400: "The request is refused: its fields, its model, its path, or its time to arrive.",
    401: "The proxy key is missing or wrong.",
    404: "No model or trace has this name.",
    405: "The path takes another method.",
    413: "The body is larger than limits.max_body_bytes.",
    415: "The body is not application/json, or it is compressed.",
    421: "A base model leads back to OptiLLM.",
    500: "Internal guard error.",
    502: "The upstream failed, or the strategy made no answer.",
    503: "The service is busy, stops, or the upstream limits the rate: see Retry-After.",
    504: "The request took longer than timeouts.request.",
}
_TEXT_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_REFUSAL_PART = {
    "type": "object",
    "required": ["type", "refusal"],
    "properties": {"type": {"const": "refusal"}, "refusal": {"type": "string"}},
}
_URL = {"type": "string", "minLength": 1}
_IMAGE_PART = {
    "type": "object",
    "required": ["type", "image_url"],
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "anyOf": [_URL, {"type": "object", "required": ["url"], "properties": {"url": _URL}}]
        },
    },
}
_OTHER_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string", "not": {"enum": ["text", "refusal", "image_url"]}}},
}
_PARTS = [_TEXT_PART, _IMAGE_PART, _REFUSAL_PART, _OTHER_PART]
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": _PARTS}}]}
_QUESTION = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"const": "user"}, "content": {"type": "string", "pattern": r"[!-~]"}},
}


#: The roles whose messages must have content, and those whose content may be missing.
_SPEAKERS = ("system", "developer", "user")
_ANSWERS = ("assistant", "tool", "function")


def _message(roles: Sequence[str], needs_content: bool) -> dict[str, Any]:
    content = _CONTENT if needs_content else {"anyOf": [*_CONTENT["anyOf"], {"type": "null"}]}
    return {
        "type": "object",
        "required": ["role", "content"] if needs_content else ["role"],
        "properties": {
            "role": {"enum": list(roles)},
            "content": content,
            "name": _nullable({"type": "string"}),
            "refusal": _nullable({"type": "string"}),
            "tool_call_id": _nullable({"type": "string"}),
            "tool_calls": _nullable({"type": "array", "items": {"type": "object"}}),
        },
    }


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _responses(schema: dict[str, Any], *errors: int, **more: Any) -> dict[str, Any]:
    return {
        "200": {"description": "The answer.", "content": {**_json(schema), **more}},
        **{
            str(status): {"description": _ERRORS[status], "content": _json(_ERROR)}
            for status in errors
        },
    }


def _get(
    summary: str, schema: dict[str, Any], *errors: int, parameter: str = "", example: str = ""
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": _responses(schema, *errors)}
    if parameter:
        operation["parameters"] = [
            {
                "name": parameter,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
                "example": example,
            }
        ]
    return {"get": operation}


def document(strategies: Sequence[str] = (), base_models: Sequence[str] = ()) -> dict[str, Any]:
    """The description. `strategies` and `base_models`: those of a running service."""
    names = offered(strategies, base_models)
    model: dict[str, Any] = {"type": "string", "description": "STRATEGY-BASE_MODEL"}
    model |= {"enum": names} if names else {"pattern": "^.+-.+$"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OptiLLM behind its guard",
            "version": GUARD_VERSION,
            "description": "OpenAI's chat completions with a strategy per model name, for LiteLLM.",
        },
        "servers": [{"url": "/"}],
        "security": [{"proxyKey": []}],
        "paths": _paths(names[0] if names else "moa-jerry-xl"),
        "components": {
            "securitySchemes": {"proxyKey": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_SCHEMAS, "ChatRequest": _request(model)},
        },
    }


def _paths(example: str) -> dict[str, Any]:
    events: dict[str, Any] = {"text/event-stream": {"schema": {}}}
    metrics = {"description": "The metrics.", "content": {"text/plain": {"schema": _TEXT}}}
    refused = {"description": _ERRORS[401], "content": _json(_ERROR)}
    chat = {
        "summary": "A chat completion, whole or as server-sent events.",
        "requestBody": {"required": True, "content": _json(_ref("ChatRequest"))},
        "responses": _responses(
            _ref("ChatCompletion"), 400, 401, 413, 415, 421, 500, 502, 503, 504, **events
        ),
    }
    trace = _get("One request, call by call.", _OBJECT, 401, 404, parameter="id", example="0" * 32)
    return {
        "/v1/chat/completions": {"post": chat},
        "/v1/models": _get("The model names.", _ref("ModelList"), 401, 502, 503),
        "/v1/models/{name}": _get(
            "One model.", _ref("Model"), 401, 404, 502, 503, parameter="name", example=example
        ),
        "/health": _open(_get("Whether the process answers.", _ref("Health"))),
        "/metrics": {
            "get": {
                "summary": "Metrics for Prometheus.",
                "responses": {"200": metrics, "401": refused},
            }
        },
        "/guard/state": _get("What runs now.", _OBJECT, 401),
        "/guard/traces": _get("The last requests.", _OBJECT, 401),
        "/guard/traces/{id}": trace,
        PATH: _open(_get("This description.", _OBJECT)),
    }


def _open(path: dict[str, Any]) -> dict[str, Any]:
    """An operation without a key."""
    return {"get": {**path["get"], "security": []}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _request(model: dict[str, Any]) -> dict[str, Any]:
    count = _nullable({"type": "integer", "minimum": 1, "maximum": 2**31 - 1})
    return {
        "type": "object",
        "description": "Also strategy_options: an object with options of the strategy, as in the "
        "documentation. Other fields are ignored, and named in the header x-optillm-dropped.",
        "required": ["model", "messages"],
        "properties": {
            "model": model,
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [_message(_SPEAKERS, True), _message(_ANSWERS, False)]},
                "contains": _QUESTION,
            },
            "n": _nullable({"type": "integer", "minimum": 1, "maximum": 128}),
            "max_tokens": count,
            "max_completion_tokens": count,
            "stream": _nullable({"type": "boolean"}),
            "stream_options": _nullable(_OBJECT),
            "user": _nullable(_TEXT),
            "safety_identifier": _nullable(_TEXT),
            "metadata": _nullable(_OBJECT),
            **{name: _nullable(schema) for name, schema in _PARAMETERS.items()},
        },
    }


_OBJECT: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {"type": "string"}
_WORD: dict[str, Any] = {"type": "string", "minLength": 1}
_TYPED: dict[str, Any] = {"type": "object", "required": ["type"], "properties": {"type": _WORD}}
_WHOLE: dict[str, Any] = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_ANY_NUMBER: dict[str, Any] = {"type": "number"}
_PARAMETERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("temperature", "top_p", "min_p"), _ANY_NUMBER),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), _ANY_NUMBER),
    **dict.fromkeys(("seed", "top_k"), _WHOLE),
    **dict.fromkeys(("reasoning_effort", "verbosity", "service_tier"), _WORD),
    "logit_bias": {"type": "object", "additionalProperties": _ANY_NUMBER},
    "stop": {"anyOf": [_WORD, {"type": "array", "minItems": 1, "items": _WORD}]},
    "response_format": _TYPED,
    "tools": {"type": "array", "items": _TYPED},
    "tool_choice": {"anyOf": [_WORD, _TYPED]},
    "parallel_tool_calls": {"type": "boolean"},
    "logprobs": {"type": "boolean"},
    "top_logprobs": _WHOLE,
}
_NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


_SCHEMAS: dict[str, Any] = {
    "Error": _object(
        {
            "error": _object(
                {
                    "message": {"type": "string", "minLength": 1},
                    "type": _TEXT,
                    "param": _nullable(_TEXT),
                    "code": _TEXT,
                }
            )
        }
    ),
    "Health": _object({"status": {"const": "ok"}}),
    "Model": _object(
        {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _NUMBER,
            "owned_by": _TEXT,
        }
    ),
    "ModelList": _object(
        {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}
    ),
    "ChatCompletion": _object(
        {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": _NUMBER,
            "model": _TEXT,
            "choices": {
                "type": "array",
                "minItems": 1,
                "items": _object(
                    {
                        "index": _NUMBER,
                        "message": _object(
                            {"role": {"const": "assistant"}, "content": _nullable(_TEXT)}
                        ),
                        "finish_reason": _TEXT,
                    }
                ),
            },
            "usage": _object(
                {
                    "prompt_tokens": _NUMBER,
                    "completion_tokens": _NUMBER,
                    "total_tokens": _NUMBER,
                }
            ),
        }
    ),
}
