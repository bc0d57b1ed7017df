"""Lets a model run code in a VM, as a tool of Anthropic's Messages API.

pip install smolvm anthropic; ANTHROPIC_API_KEY=... python tool_calling_anthropic.py "Which day was 100 days ago?"
"""

import sys

from anthropic import Anthropic

from smolvm import OperationTimeoutError, SmolVM

TOOL = {
    "name": "run_program",
    "description": "Runs a program in a Debian of your own. What it writes to files is there for the next one.",
    "input_schema": {
        "type": "object",
        "properties": {"source": {"type": "string"}, "interpreter": {"type": "string", "enum": ["python3", "bash"]}},
        "required": ["source"],
    },
}


def run_program(vm: SmolVM, source: str, interpreter: str = "python3") -> tuple[str, bool]:
    """Gives what a program printed, and whether it failed."""
    try:
        result = vm.run([interpreter, "/dev/stdin"], stdin=source, timeout=60)
    except OperationTimeoutError as e:
        return f"timed out after 60 s; it had printed: {e.stdout[-2000:]}", True
    return (result.stdout or result.stderr)[-20000:] or f"exit code {result.exit_code}", not result.ok


def main(question: str) -> None:
    client = Anthropic()
    messages: list = [{"role": "user", "content": question}]
    with SmolVM() as vm:  # one VM for the whole conversation, gone afterwards
        while True:
            answer = client.messages.create(model="claude-sonnet-4-5", max_tokens=2048, tools=[TOOL], messages=messages)
            messages.append({"role": "assistant", "content": answer.content})
            results = []
            for block in answer.content:
                if block.type == "text":
                    print(block.text)
                elif block.type == "tool_use":
                    output, failed = run_program(vm, **block.input)
                    print(f"[VM] {output.strip()}")
                    results.append({"type": "tool_result", "tool_use_id": block.id, "content": output, "is_error": failed})
            if not results:
                return
            messages.append({"role": "user", "content": results})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "Which day was 100 days ago?")
