"""What the trainer finds out by itself about language models, and what it refuses before the first step."""

import logging
from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate import DistributedType
from language_helpers import COLLATE, LABELLED, OBJECTIVE, ROWS, check, one_step, student, teacher, truth
from language_helpers import trainer_of as trainer_of_texts
from training_helpers import arguments, lines_of
from training_helpers import trainer_of as trainer_of_vectors

import tutelage as tl
from tiny_texts import SIZES, gpt2, llama, tokenizer
from tutelage.errors import CompatibilityError, DataError, ModuleError, ParameterError, VocabularyError
from tutelage.models import HeadModel, add_lora, align
from tutelage.tasks import CausalLM, Classification, MaskedLM, SequenceClassification, TokenClassification
from tutelage.training import DistillationTrainer, TokenCollator
from tutelage.training._sharding import check_asked_for, check_sharded, check_sharding

# What peft asks of transformers is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TOKENIZER = tokenizer()


def bert(kind, seed=1, **changes):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, vocab_size=400, num_labels=3, attn_implementation="eager", **changes)
    return getattr(transformers, f"BertFor{kind}")(config)


def as_lists(row, labelled):
    """A row of the other tests, as people have them: lists of numbers."""
    lists = {name: row[name].tolist() for name in ("input_ids", "labels", "target_mask")}
    return lists if labelled else {**lists, "labels": None}


LISTS = [as_lists(row, labelled) for row, labelled in zip(ROWS, LABELLED, strict=True)]

# --- which task -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "task", "by_its_head"),
    [
        (llama, CausalLM, True),
        (gpt2, CausalLM, True),
        (lambda: add_lora(llama()), CausalLM, True),
        (lambda: HeadModel(llama()), CausalLM, True),
        (lambda: HeadModel(add_lora(llama())), CausalLM, True),
        (lambda: bert("MaskedLM"), MaskedLM, True),
        (lambda: bert("SequenceClassification"), SequenceClassification, False),
        (lambda: bert("TokenClassification"), TokenClassification, False),
        (lambda: torch.nn.Linear(6, 4), Classification, False),
    ],
)
def test_the_task_is_that_of_the_architecture(tmp_path, caplog, network, task, by_its_head):
    with caplog.at_level(logging.INFO, logger="tutelage"):
        trainer = DistillationTrainer(network(), network(), OBJECTIVE, arguments(tmp_path))
    assert type(trainer.distillation.task) is task
    assert isinstance(trainer.distillation.student, HeadModel) == by_its_head
    assert isinstance(trainer.distillation.teachers["teacher"].module, HeadModel) == by_its_head
    said = [record.getMessage() for record in caplog.records if "the task is" in record.getMessage()]
    assert len(said) == (task is not Classification)
    assert all(task.__name__ in line for line in said)


def test_a_task_that_was_given_is_kept_and_checked(tmp_path, refused):
    trainer = DistillationTrainer(llama(), llama(2), OBJECTIVE, arguments(tmp_path), task=CausalLM())
    assert isinstance(trainer.distillation.student, HeadModel)
    with refused(ModuleError, "the student is LlamaForCausalLM, and the task is 'masked_lm'", "ForMaskedLM"):
        DistillationTrainer(llama(), llama(2), OBJECTIVE, arguments(tmp_path), task=MaskedLM())


def test_a_model_whose_head_is_not_known_is_run_whole(tmp_path, caplog):
    class Own(transformers.LlamaForCausalLM):
        def forward(self, *given, **named):
            return super().forward(*given, **named)

    torch.manual_seed(0)
    trainer = DistillationTrainer(Own(llama().config), llama(2), OBJECTIVE, arguments(tmp_path))
    assert isinstance(trainer.distillation.student, Own)
    assert "its logits are made as a whole, because" in caplog.text


# --- which batches ----------------------------------------------------------------------------------------------------


def test_a_tokenizer_is_enough_to_train_on_lists(tmp_path):
    given = {"data_collator": None, "processing_class": TOKENIZER}
    check(one_step(tmp_path, rows=LISTS, size=2, accumulation=4, **given), truth(student()))


def test_a_classifier_of_texts_and_a_tokenizer(tmp_path):
    rows = [{"input_ids": [5, 6, 7, 8][: 2 + place % 3], "labels": [2, None, 0][place % 3]} for place in range(6)]
    given = {"data_collator": None, "processing_class": TOKENIZER, "eval_dataset": rows, "learning_rate": 0.01}
    networks = bert("SequenceClassification"), bert("SequenceClassification", 2)
    trainer = trainer_of_vectors(tmp_path, rows, *networks, **given, num_train_epochs=8)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_hard"] < before["eval_hard"]
    batch = TokenCollator(TOKENIZER, of_rows=True)([rows[1], rows[4]])
    assert batch["labels"].tolist() == [-100, -100]


def test_masked_language_models_and_a_tokenizer(tmp_path):
    rows = [
        {"input_ids": [5, 6, 7, 8, 9][: 3 + place % 3], "labels": [-100, 9, -100, 7, 7][: 3 + place % 3]}
        for place in range(8)
    ]
    given = {"data_collator": None, "processing_class": TOKENIZER, "eval_dataset": rows}
    trainer = trainer_of_vectors(tmp_path, rows, bert("MaskedLM"), bert("MaskedLM", 2), num_train_epochs=4, **given)
    trainer.train()
    assert lines_of(trainer)[-1]["hard"] < lines_of(trainer)[0]["hard"]
    assert trainer.evaluate()["eval_nll"] > 0


def test_rows_that_cannot_become_a_batch_are_named(refused):
    for row, came, remedy in [
        ({"text": "abc"}, r"has \['text'\]", "tokenize the texts"),
        ([1, 2], "is list", "tokenize the texts"),
        ({"input_ids": []}, "has no token", "leave empty texts out"),
        ({"input_ids": [1, 2], "labels": [1, 2, 3]}, r"'labels' of shape \(3,\) and 2 'input_ids'", "each of them"),
        ({"input_ids": [1, 2], "text": "abc", "labels": None}, "str as 'text'", "remove the column"),
        ({"input_ids": [1] * 4, "position_ids": [0, 1, 0, 1], "labels": None}, "several documents", "CausalCollator"),
    ]:
        with refused(DataError, came, remedy):
            TokenCollator(TOKENIZER)([row])
    with refused(DataError, "1 of 2 rows of a batch have no 'token_type_ids'", "no 'token_type_ids'"):
        TokenCollator(TOKENIZER)([{"input_ids": [1], "token_type_ids": [0]}, {"input_ids": [1]}])
    with refused(DataError, "neither a padding nor an end-of-text token", "set tokenizer.pad_token"):
        TokenCollator(SimpleNamespace(pad_token_id=None, eos_token_id=None))


def test_a_batch_without_labels_is_an_error_only_where_a_term_wants_them(tmp_path, refused):
    rows = [{"input_ids": [5, 6, 7]}] * 4
    given = {"rows": rows, "data_collator": None, "processing_class": TOKENIZER, "max_steps": 1}
    with refused(
        DataError, r"no row of the data set has a label, and the terms \['hard'\] need them", "one for each token"
    ):
        trainer_of_texts(tmp_path, **given).train()
    soft = tl.Objective({"soft": tl.Term(tl.ForwardKL())})
    trainer = trainer_of_texts(tmp_path, objective=soft, **given)
    trainer.train()
    assert lines_of(trainer)[0]["soft"] > 0


# --- which outcomes ---------------------------------------------------------------------------------------------------


def test_heads_of_different_widths(tmp_path, refused):
    def wide():
        network = teacher()
        network.resize_token_embeddings(448, mean_resizing=False)
        return network

    wanted = r"head has 400 outcomes and that of the teacher 'teacher' has 448"
    with refused(VocabularyError, wanted, r"models\.align\(student_tokenizer, teacher_tokenizer, 400, 448\)"):
        trainer_of_texts(tmp_path, student(), wide())
    with refused(VocabularyError, wanted, "align"):
        ready = tl.DistillationModel(HeadModel(student()), {"teacher": HeadModel(wide())}, OBJECTIVE, CausalLM())
        DistillationTrainer(ready, args=arguments(tmp_path))
    vocabulary, _ = align(TOKENIZER, TOKENIZER, 400, 448)

    class Cut(torch.nn.Module):
        """The wide teacher, renormalised over the tokenizer's ids."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, input_ids):
            return SimpleNamespace(logits=self.network(input_ids=input_ids).logits[..., :400])

    check(one_step(tmp_path, student(), wide(), vocabulary=vocabulary), truth(student(), {"teacher": Cut(wide())}))


# --- saving, resuming, evaluating -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_the_student_is_saved_alone_with_its_tokenizer(tmp_path, tied):
    trainer = trainer_of_texts(tmp_path, student(tie_word_embeddings=tied), processing_class=TOKENIZER, max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", attn_implementation="eager")
    assert loaded.config.use_cache is not None
    ids = torch.arange(5, 17)[None]
    trained = trainer.distillation.student.model.eval()
    assert torch.equal(loaded(input_ids=ids).logits, trained(input_ids=ids).logits)
    assert not torch.equal(loaded(input_ids=ids).logits, student(tie_word_embeddings=tied)(input_ids=ids).logits)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again("def f(x): return x").input_ids == TOKENIZER("def f(x): return x").input_ids


def test_adapters_are_saved_alone(tmp_path):
    trainer = trainer_of_texts(tmp_path, add_lora(student()), max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "saved" / "model.safetensors").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, tied):
    given = {"max_steps": 4, "optim": "adamw_torch", "save_strategy": "steps", "save_steps": 2}

    def made(folder):
        network = student(tie_word_embeddings=tied)
        return trainer_of_texts(folder, network, per_device_train_batch_size=2, **given)

    whole, resumed = made(tmp_path / "one"), made(tmp_path / "one")
    whole.train()
    resumed.train(resume_from_checkpoint=tmp_path / "one" / "checkpoint-2")
    assert lines_of(resumed) == lines_of(whole)
    mine, theirs = (trainer.distillation.student.state_dict() for trainer in (resumed, whole))
    assert all(torch.equal(value, mine[name]) for name, value in theirs.items())
    if tied:
        student_of = resumed.distillation.student.model
        assert student_of.lm_head.weight is student_of.get_input_embeddings().weight


def test_predictions_that_never_exist_are_no_silence(tmp_path, refused):
    given = {"args": arguments(tmp_path), "data_collator": COLLATE, "eval_dataset": LISTS}
    trainer = DistillationTrainer(student(), teacher(), OBJECTIVE, compute_metrics=lambda _: {}, **given)
    trainer.data_collator = TokenCollator(TOKENIZER)
    with refused(CompatibilityError, "its logits never exist as a whole", "read eval_nll"):
        trainer.evaluate()


# --- sharding that is not there ---------------------------------------------------------------------------------------


def test_fsdp_on_a_cpu_is_refused(tmp_path, refused, monkeypatch):
    for variable in ("ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        monkeypatch.delenv(variable, raising=False)
    with refused(ParameterError, "fsdp was asked for on a CPU, where accelerate leaves it off", "leave fsdp out"):
        trainer_of_vectors(tmp_path, fsdp=True)
    with refused(ParameterError, "fsdp_config has version 1", "leave it out"):
        trainer_of_vectors(tmp_path, fsdp=True, fsdp_config={"version": 1})
    # By a launcher; and what is not asked for is not missed.
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with refused(ParameterError, "ACCELERATE_USE_FSDP=true.*accelerate runs 'NO' on cpu", "unset ACCELERATE_USE_FSDP"):
        trainer_of_vectors(tmp_path, max_steps=1).train()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    trainer_of_vectors(tmp_path, max_steps=1).train()


def test_other_sharding(tmp_path, refused, monkeypatch):
    args = arguments(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with refused(ParameterError, "DeepSpeed was asked for", "FSDP2"):
        DistillationTrainer(llama(), llama(2), OBJECTIVE, args)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    check_asked_for(args)
    gpu = SimpleNamespace(
        deepspeed=None, fsdp=True, fsdp_config={}, device=torch.device("cuda"), parallel_mode="not_parallel"
    )
    with refused(ParameterError, "fsdp was asked for in one process", "torchrun"):
        check_asked_for(gpu)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_sharding(SimpleNamespace(distributed_type=DistributedType.FSDP, device="cuda"))
    with refused(ParameterError, "accelerate runs 'MULTI_CPU'", "a GPU for each process"):
        check_sharding(SimpleNamespace(distributed_type=DistributedType.MULTI_CPU, device="cpu"))
    with refused(ParameterError, "no weight of LlamaForCausalLM was sharded", "fsdp_config"):
        check_sharded(llama())
