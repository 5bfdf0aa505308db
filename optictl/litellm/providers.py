"""How LiteLLM reads a model's name: which provider it means, what is sent on, and which variables the provider looks up."""

from __future__ import annotations

import re

#: Prefixes that speak OpenAI's /chat/completions to any `api_base`, and the variables where each looks for what is missing.
OPENAI_VARIABLES = {
    "hosted_vllm": ("HOSTED_VLLM_API_BASE",),
    "litellm_proxy": ("LITELLM_PROXY_API_BASE",),
    "llamafile": ("LLAMAFILE_API_BASE",),
    "lm_studio": ("LM_STUDIO_API_BASE",),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "custom_openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
}
#: The same shape, with a public address of their own where no `api_base` is given.
_CLOUDS = """
abliteration aihubmix anyscale apertis assemblyai cerebras charity_engine chutes cognition cortecs crusoe darkbloom
dashscope deepinfra deepseek edenai empiriolabs featherless_ai fireworks_ai friendliai galadriel github gmi groq
helicone hyperbolic inception lambda_ai libertai llamagate meta meta_llama mistral modelscope moonshot morph nano-gpt
nebius neosantara novita nscale nvidia_nim openai_like openrouter parasail perplexity pinstripes poe prism publicai
qwen_ai_platform qwencloud reka sail sambanova sarvam scaleway scx-ai synthetic tensormesh together_ai v0 veniceai
vercel_ai_gateway volcengine wandb xai xiaomi_mimo xinference zai
"""
#: Prefixes that speak something else, or at other paths.
_OTHERS = """
a2a a2a_agent ai21 ai21_chat aiml aiohttp_openai amazon_nova anthropic anthropic_text auto_router aws_polly aws_textract
azure azure_ai azure_speech azure_text baseten bedrock bedrock_mantle black_forest_labs bytez chatgpt clarifai
cloudflare codestral cohere cohere_chat cometapi compactifai cursor custom databricks datarobot deepgram
docker_model_runner dotprompt elevenlabs empower fal_ai gdc gemini gigachat github_copilot gradient_ai heroku
huggingface humanloop infinity jina_ai langflow langfuse langgraph lemonade litellm_agent manus maritalk milvus minimax
mongodb nadir nlp_cloud nvidia_riva oci ollama ollama_chat oobabooga ovhcloud petals pg_vector predibase ragflow recraft
reducto replicate runwayml s3_vectors sagemaker sagemaker_chat sagemaker_nova sap snowflake soniox stability
strands_decider tencent text-completion-codestral text-completion-inception text-completion-openai topaz transcribe
triton typesafe valkey vertex_ai vertex_ai_beta vllm voyage watsonx watsonx_text
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
    return "openai" if name == "*" else next((provider for pattern, provider in _FAMILIES if pattern.match(name)), None)


def split(model: str, named: str | None, own: frozenset[str] = frozenset()) -> tuple[str, str] | None:
    """(provider, the name that it is sent) for a `model` and a `custom_llm_provider`; None: LiteLLM knows no provider.

    `own` are the providers of the configuration's own code.
    """
    if named and model.partition("/")[0] != named:
        model = f"{named}/{model}"
    prefix, slash, rest = model.partition("/")
    if slash and (prefix in PROVIDERS or prefix in own):
        return prefix, rest
    provider = provider_of(model)
    return (provider, model) if provider else None
