"""A language model in a folder: tiny ones, made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from robo.core.errors import ConfigError, UnknownNameError, WriterError
from tasks.instruct.llm import Author, describe
from tasks.instruct.local import LocalModel
from tasks.instruct.program import Program
from tasks.instruct.writers import open_writer
from tasks.tabletop.open_drawer import OpenDrawer
from tasks.tabletop.pick_and_place import PickAndPlace

TASK, SAID = OpenDrawer(), "open the drawer"
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Listener:
    """An answer that only keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []

    def __call__(self, messages, schema) -> str:
        self.asked.append(list(messages))
        return PLAN if schema is None else GOOD


PLAN = "1. grip the handle 2. pull 3. let go"
GOOD = json.dumps(
    {
        "instruction": SAID,
        "stages": [{"name": "pull", "condition": "open_m > 0.12", "distance": "max(0.12 - open_m, 0)"}],
        "mission": "F[0,7](open_m > 0.12)",
        "goal": "open_m > 0.12",
    }
)


def questions() -> list[list[dict[str, str]]]:
    """What a model is asked for this task, in order."""
    listener = Listener()
    Author(answer=listener, name="nobody").write(TASK, SAID)
    return listener.asked


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Bytes and the pairs that are frequent here, so that a tiny model reads a whole scene."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<end>", "<|system|>", "<|user|>", "<|assistant|>"]
    texts = [describe(TASK), describe(PickAndPlace()), *(m["content"] for asked in questions() for m in asked)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([*texts * 3, PLAN, GOOD], trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")
    found.chat_template = template
    return found


def model(tokens: PreTrainedTokenizerFast, positions: int = 4096) -> LlamaForCausalLM:
    """Two layers, random."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        eos_token_id=tokens.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def saved(folder: Path, tokens: PreTrainedTokenizerFast, network: LlamaForCausalLM) -> Path:
    network.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def learn(network: LlamaForCausalLM, tokens: PreTrainedTokenizerFast, folder: Path) -> None:
    """Both answers by heart."""
    prompts = [LocalModel(folder).prompt(asked) for asked in questions()]
    cases = []
    for prompt, answer in zip(prompts, (PLAN, GOOD), strict=True):
        asked = tokens(prompt, add_special_tokens=False)["input_ids"]
        said = [*tokens(answer, add_special_tokens=False)["input_ids"], tokens.eos_token_id]
        cases.append((torch.tensor([asked + said]), torch.tensor([[-100] * len(asked) + said])))
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(400):
        loss = sum(network(input_ids=ids, labels=labels).loss for ids, labels in cases)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            return
    raise AssertionError("not learned")


def test_a_model_that_knows_the_answers_writes_the_program(tmp_path):
    torch.set_num_threads(1)
    tokens = tokenizer(TEMPLATE)
    network = model(tokens)
    folder = saved(tmp_path / "model", tokens, network)
    learn(network, tokens, folder)
    saved(folder, tokens, network)
    writer = open_writer(f"local:{folder}", record=tmp_path / "talk")
    program = writer.write(TASK, SAID)
    assert program == Program.parse(GOOD)
    assert program.apply(TASK).goal == "open_m > 0.12"
    assert open_writer(f"replay:{tmp_path / 'talk'}").write(TASK, SAID) == program


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_model_that_knows_nothing_is_given_up_after_its_rounds(tmp_path, template):
    tokens = tokenizer(template)
    folder = saved(tmp_path, tokens, model(tokens, 8192))
    asked: list[str] = []
    inner = LocalModel(folder, most_tokens=12)

    def answer(messages, schema) -> str:
        asked.append(inner.prompt(messages))
        return inner(messages, schema) or "?"

    with pytest.raises(WriterError, match=r"wrote no program that fits open_drawer in 2 rounds; of the last one: "):
        Author(answer=answer, name=f"the model {folder}", rounds=2).write(TASK, SAID)
    assert len(asked) == 3
    assert asked[0].endswith("<|assistant|>" if template else "assistant:\n")
    assert "That program does not do" in asked[2]


def test_only_what_is_allowed_is_said(tmp_path):
    tokens = tokenizer(None)
    folder = saved(tmp_path, tokens, model(tokens))
    wanted = [*tokens(GOOD, add_special_tokens=False)["input_ids"], tokens.eos_token_id]
    start: list[int] = []

    def allowed(batch: int, said: torch.Tensor) -> list[int]:
        start.append(len(said))
        return [wanted[len(said) - start[0]]]

    text = LocalModel(folder, allowed=allowed)([{"role": "user", "content": "the drawer, please"}], None)
    assert Program.parse(text) == Program.parse(GOOD)


def test_models_that_cannot_be_used(tmp_path):
    with pytest.raises(WriterError, match=r"no model in .*none: a folder with config.json"):
        open_writer(f"local:{tmp_path / 'none'}")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(WriterError, match="cannot be loaded"):
        open_writer(f"local:{tmp_path}")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    with pytest.raises(WriterError, match="cannot be loaded"):
        open_writer(f"local:{tmp_path}")
    assert not (tmp_path / "owned").exists(), "no code of a model is run"
    tokens = tokenizer(None)
    folder = saved(tmp_path / "small", tokens, model(tokens, 64))
    with pytest.raises(WriterError, match="reads 64 tokens, this scene takes"):
        open_writer(f"local:{folder}").write(TASK, SAID)
    network = model(tokens)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WriterError, match="cannot be loaded"):
        open_writer(f"local:{folder}")


def test_writers_by_name(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown writer 'gramar': did you mean 'grammar'"):
        open_writer("gramar")
    with pytest.raises(ConfigError, match="writer local needs a path: local:FOLDER_OF_A_MODEL"):
        open_writer("local")
    with pytest.raises(ConfigError, match="writer grammar takes no path"):
        open_writer("grammar:x")
    with pytest.raises(ConfigError, match="nothing to record"):
        open_writer("grammar", record=tmp_path)
