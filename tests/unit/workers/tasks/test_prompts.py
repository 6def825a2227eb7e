from pathlib import Path

from workers.base_model import load_tokenizer
from workers.data import render, render_prompt
from workers.rows import InstructionRow
from workers.tasks.few_shot import with_shots
from workers.tasks.registry import task_named


def test_a_question_is_asked_as_its_row_is_trained(tiny_model_dir: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model_dir))
    fields = [
        {"instruction": f"Add {n}.", "input": f"{n} + {n}", "output": f"It is {2 * n}."}
        for n in range(3)
    ]
    row, *shot_rows = (InstructionRow(**each) for each in fields)
    question, *shots = (task_named("gsm8k").question(each) for each in fields)

    assert render(tokenizer, question.messages) == render_prompt(tokenizer, row)
    assert render(tokenizer, with_shots(question, shots).messages) == render_prompt(
        tokenizer, row, shot_rows
    )
