"""How LiteLLM reads a model name: the provider, the name that the provider gets, its variables.

Source: LiteLLM 1.106.2; a test compares the lists below with it.
"""

from __future__ import annotations

import re

#: Prefixes that send OpenAI's /chat/completions to any `api_base` -> the variables with a default
#: for `api_base`.
OPENAI_VARIABLES = {
    "hosted_vllm": ("HOSTED_VLLM_API_BASE",),
    "litellm_proxy": ("LITELLM_PROXY_API_BASE",),
    "llamafile": ("LLAMAFILE_API_BASE",),
    "lm_studio": ("LM_STUDIO_API_BASE",),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "custom_openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
}
#: Prefixes with the same protocol that have a public address when `api_base` is missing.
_CLOUDS = """
abliteration ai21 ai21_chat aihubmix aiml aiohttp_openai amazon_nova apertis assemblyai azure_ai
baseten bedrock_mantle cerebras charity_engine chutes cloudflare codestral cognition cometapi
compactifai cortecs crusoe darkbloom dashscope databricks deepinfra deepseek docker_model_runner
edenai empiriolabs empower featherless_ai friendliai galadriel github gmi groq helicone huggingface
hyperbolic inception lambda_ai lemonade libertai llamagate maritalk meta meta_llama minimax mistral
modelscope moonshot morph nadir nano-gpt nebius neosantara novita nscale nvidia_nim openrouter
ovhcloud parasail perplexity pinstripes poe prism publicai qwen_ai_platform qwencloud reka sail
sambanova sarvam scaleway scx-ai synthetic tencent tensormesh together_ai v0 veniceai
vercel_ai_gateway volcengine wandb xai xiaomi_mimo xinference zai
"""
#: Prefixes with another protocol, other paths, or another model name.
_OTHERS = """
a2a a2a_agent anthropic anthropic_text auto_router aws_polly aws_textract azure azure_speech
azure_text bedrock black_forest_labs bytez chatgpt clarifai cohere cohere_chat cursor custom
datarobot deepgram dotprompt elevenlabs fal_ai fireworks_ai gdc gemini gigachat github_copilot
gradient_ai heroku humanloop infinity jina_ai langflow langfuse langgraph litellm_agent manus milvus
mongodb nlp_cloud nvidia_riva oci ollama ollama_chat oobabooga openai_like petals pg_vector
predibase ragflow recraft reducto replicate runwayml s3_vectors sagemaker sagemaker_chat
sagemaker_nova sap snowflake soniox stability strands_decider text-completion-codestral
text-completion-inception text-completion-openai topaz transcribe triton typesafe valkey vertex_ai
vertex_ai_beta vllm voyage watsonx watsonx_text
"""
OPENAI_SHAPED = frozenset(OPENAI_VARIABLES) | frozenset(_CLOUDS.split())
PROVIDERS = OPENAI_SHAPED | frozenset(_OTHERS.split())

#: Names that LiteLLM knows without a prefix.
_FAMILIES = (
    (re.compile(r"(gpt-|chatgpt-|o[134](-|$)|ft:gpt-|text-embedding-)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
)


def provider_of(name: str) -> str | None:
    """The provider that LiteLLM infers from a name, or None."""
    prefix, slash, _ = name.partition("/")
    if slash and prefix in PROVIDERS:
        return prefix
    return (
        "openai"
        if name == "*"
        else next((provider for pattern, provider in _FAMILIES if pattern.match(name)), None)
    )


def split(
    model: str, named: str | None, own: frozenset[str] = frozenset()
) -> tuple[str, str] | None:
    """The provider of a `model`, and the name that it gets. None when LiteLLM knows no provider.

    `named`: the entry's `custom_llm_provider`. `own`: prefixes in `custom_provider_map`.
    """
    if named and model.partition("/")[0] != named:
        model = f"{named}/{model}"
    prefix, slash, rest = model.partition("/")
    if slash and (prefix in PROVIDERS or prefix in own):
        return prefix, rest
    provider = provider_of(model)
    return (provider, model) if provider else None
