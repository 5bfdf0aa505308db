"""How LiteLLM reads a model name: the provider, the name that the provider gets, its variables.

A test compares the lists below with real LiteLLMs (`versions`). A prefix that is in none of them
is unknown: a newer LiteLLM may know it.
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
abliteration ai21 ai21_chat aiand aihubmix aiml aiohttp_openai amazon_nova apertis assemblyai
azure_ai baseten bedrock_mantle cerebras charity_engine chutes clf_ai_gateway cloudflare codestral
cognition cometapi compactifai coralbricks cortecs crusoe darkbloom dashscope databricks deepinfra
deepseek docker_model_runner edenai empiriolabs empower featherless_ai friendliai galadriel github
gmi groq helicone hostinger_router huggingface hyperbolic inception inferenceapis kyma lambda_ai
lemonade libertai llamagate maritalk meta meta_llama minimax mistral modelscope moonshot morph nadir
nano-gpt nebius neosantara novita nscale nvidia_nim opencode_go openinfer openrouter ovhcloud
parasail perplexity pinstripes poe prism publicai qwen_ai_platform qwencloud refuseless reka sail
sambanova sarvam scaleway scx-ai streamlake synthetic tencent tensormesh together_ai v0 veniceai
vercel_ai_gateway volcengine wally wandb xai xiaomi_mimo xinference zai zerogpu
"""
#: Prefixes with another protocol, other paths, or another model name.
_OTHERS = """
a2a a2a_agent anthropic anthropic_text auto_router aws_polly aws_textract azure azure_speech
azure_text bedrock bespoke bigmodel black_forest_labs bytez chatgpt clarifai cohere cohere_chat
cursor custom databricks_agent datarobot deepgram dotprompt elevenlabs eu_jev fal_ai fireworks_ai
gdc gemini gigachat github_copilot gradient_ai heroku humanloop infinity jina_ai langflow langfuse
langgraph laya litellm_agent manus microsoft_365_copilot milvus mongodb nace nlp_cloud nvidia_riva
oci ollama ollama_chat oobabooga openai_like opensearch parallel_ai petals pg_vector predibase
ragflow recraft reducto replicate runwayml s3_vectors sagemaker sagemaker_chat sagemaker_nova sap
scaledown snowflake soniox stability strands_decider text-completion-codestral
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


def split(model: str, named: str | None) -> tuple[str, str] | None:
    """The provider of a `model`, and the name that it gets. None for a name without a provider.

    `named`: the entry's `custom_llm_provider`. The provider may be unknown: see `is_known`.
    """
    if named and model.partition("/")[0] != named:
        model = f"{named}/{model}"
    prefix, slash, rest = model.partition("/")
    if slash and prefix in PROVIDERS:
        return prefix, rest
    if provider := provider_of(model):
        return provider, model
    return (prefix, rest) if slash and prefix and rest else None


def is_known(provider: str) -> bool:
    """Whether optictl knows the protocol of this provider prefix."""
    return provider in PROVIDERS
