"""Lets a model run code in a VM, as a tool of OpenAI's chat completions.

pip install smolvm openai; OPENAI_API_KEY=... python tool_calling_openai.py "Which day was 100 days ago?"
"""

import json
import sys

from openai import OpenAI

from smolvm import OperationTimeoutError, SmolVM

TOOL = {
    "type": "function",
    "function": {
        "name": "run_program",
        "description": "Runs a Python program in a Debian of your own. What it writes to files is there for the next one.",
        "parameters": {"type": "object", "properties": {"source": {"type": "string"}}, "required": ["source"]},
    },
}


def run_program(vm: SmolVM, source: str) -> str:
    try:
        result = vm.run(["python3", "-"], stdin=source, timeout=60)
    except OperationTimeoutError as e:
        return f"timed out; it had printed: {e.stdout[-2000:]}"
    return result.output if result.ok else f"exit code {result.exit_code}: {result.stderr[-20000:]}"


def main(question: str) -> None:
    client = OpenAI()
    messages: list = [{"role": "user", "content": question}]
    with SmolVM() as vm:
        while True:
            answer = client.chat.completions.create(model="gpt-5-mini", tools=[TOOL], messages=messages)
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if message.content:
                print(message.content)
            if not message.tool_calls:
                return
            for call in message.tool_calls:
                output = run_program(vm, **json.loads(call.function.arguments))
                print(f"[VM] {output}")
                messages.append({"role": "tool", "tool_call_id": call.id, "content": output})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "Which day was 100 days ago?")
