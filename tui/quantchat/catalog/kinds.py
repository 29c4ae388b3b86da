"""What a model is for: only causal language models hold conversations."""

from __future__ import annotations

import re

import msgspec

from quantchat.catalog.architectures import is_chat_type
from quantchat.catalog.files import Folder, JsonObject
from quantchat.catalog.problems import problem
from quantchat.catalog.triage import listed
from quantchat.domain.models import Kind, Problem


class Named(msgspec.Struct, frozen=True):
    """What config.json says of the network: the class (or its type, if no class is named), its type, its own code."""

    architecture: str
    model_type: str
    code: tuple[str, ...] = ()


_DRAFT = re.compile(r"Eagle|Medusa|Speculator|MTPDraft")
_ENCODER = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MaskedLM|PreTraining|RewardModel)"
)
_VISION = re.compile(
    r"For(Image|Object|Depth|Semantic|Universal|VisionText|Vision2Seq)|^(CLIP|Siglip|Dino|ViT|Swin|SAM|Sam)"
)
_OTHER = re.compile(
    r"For(CTC|TextToWaveform|AudioClassification|SpeechSeq2Seq|TimeSeries)|^(Whisper|Wav2Vec2|Bark|Musicgen)"
)
_EMBEDDING_FILES = ("modules.json", "config_sentence_transformers.json")
_EMBEDDING = re.compile(
    r"^(Bert|XLMRoberta|Roberta|MPNet|NomicBert|ModernBert|DistilBert|NewModel|JinaBert|Albert)(Model)?$"
)


def kind_of(folder: Folder, config: JsonObject, named: Named) -> Kind:
    """Say what a model is for."""
    architecture = named.architecture
    if _DRAFT.search(architecture) or isinstance(config.get("speculators_config"), dict):
        return "draft"
    if any(name in folder for name in _EMBEDDING_FILES) or _EMBEDDING.match(architecture):
        return "embedding"
    if _VISION.search(architecture) or _is_vision_only(config, named):
        return "vision"
    if _OTHER.search(architecture):
        return "other"
    if _ENCODER.search(architecture) or config.get("is_encoder_decoder") is True:
        return "encoder"
    return "chat"


def _is_vision_only(config: JsonObject, named: Named) -> bool:
    pictures = any(isinstance(config.get(key), dict) for key in ("vision_config", "visual", "image_config"))
    return pictures and not named.code and not is_chat_type(named.model_type)


def judge_kind(kind: Kind, named: Named) -> Problem | None:
    """Say why a model cannot hold a conversation; None if it can."""
    what = named.architecture or named.model_type
    if kind == "embedding":
        return problem("embedding-model", architecture=what)
    if kind == "vision":
        return problem("vision-model", architecture=what)
    if kind == "draft":
        return problem("draft-model", architecture=what)
    if kind in ("encoder", "other"):
        return problem("not-a-chat-model", architecture=what)
    if not named.model_type or is_chat_type(named.model_type):
        return None
    if named.code:
        return problem("remote-code-needed", model_type=named.model_type, files=listed(named.code))
    return problem("architecture-unknown", model_type=named.model_type)
