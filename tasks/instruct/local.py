"""A language model of one's own disk, run by transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robo.core.errors import WriterError
from tasks.instruct.llm import Message, require

Allowed = Callable[[int, Any], list[int]]
"""Which tokens may come next, as ``prefix_allowed_tokens_fn`` of transformers has it: which sequence, its tokens."""


class LocalModel:
    """A causal language model in a folder, as an `Answer`. Only safetensors are read, and no code of the model's.

    Answers are greedy: the same question has the same answer.

    Args:
        path: The folder, as ``save_pretrained`` of model and tokenizer writes it.
        most_tokens: Longest answer.
        allowed: Which tokens may come next; None: any.

    Raises:
        WriterError: There is no such model, or it cannot be loaded; says why.
        MissingDependencyError: transformers is not installed.
    """

    def __init__(self, path: str | Path, *, most_tokens: int = 2048, allowed: Allowed | None = None) -> None:
        require("transformers", "local")
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise WriterError(
                f"no model in {path}: a folder with config.json, *.safetensors and a tokenizer is expected, "
                "as save_pretrained of transformers writes it"
            )
        import transformers

        try:
            self._tokens: Any = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise WriterError(f"the model in {path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._model.eval()
        self._path, self._most, self._allowed = path, most_tokens, allowed

    def __call__(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
        """See `Answer`. The schema is told in the prompt alone."""
        import torch

        inputs = self._tokens(self.prompt(messages), return_tensors="pt", add_special_tokens=not self._templated)
        asked = inputs["input_ids"].shape[1]
        room = getattr(self._model.config, "max_position_embeddings", None) or asked + self._most
        if asked >= room:
            raise WriterError(
                f"the model in {self._path} reads {room} tokens, this scene takes {asked}; take a larger one"
            )
        with torch.inference_mode():
            found = self._model.generate(
                **inputs,
                max_new_tokens=min(self._most, room - asked),
                do_sample=False,
                num_beams=1,
                pad_token_id=self._tokens.pad_token_id or self._tokens.eos_token_id or 0,
                prefix_allowed_tokens_fn=self._allowed,
            )
        return self._tokens.decode(found[0, asked:], skip_special_tokens=True)

    @property
    def _templated(self) -> bool:
        return bool(getattr(self._tokens, "chat_template", None))

    def prompt(self, messages: Sequence[Message]) -> str:
        """Messages as the model's own chat template writes them, or plainly where it has none."""
        if self._templated:
            return self._tokens.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return "".join(f"{m['role']}:\n{m['content']}\n\n" for m in messages) + "assistant:\n"
