"""Makes docs/python-reference.md of the docstrings. `python reference.py --check` only tells whether it is up to date."""

import ast
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "src" / "smolvm"
TARGET = HERE.parent / "docs" / "python-reference.md"

HEAD = """# Python reference

Made of the docstrings by `python/reference.py`. `AsyncSmolVM`, `AsyncProcess` and `AsyncImageBuilder` have the same methods, to be awaited.
[python.md](python.md) is the introduction.
"""


def classes(name: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse((SOURCE / name).read_text())
    return {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}


def signature(f: ast.FunctionDef) -> str:
    arguments = ast.unparse(f.args)
    for lead in ("self, ", "cls, ", "self", "cls"):
        if arguments.startswith(lead):
            arguments = arguments[len(lead) :]
            break
    returns = f" -> {ast.unparse(f.returns)}" if f.returns is not None and f.name != "__init__" else ""
    return f"({arguments}){returns}"


def methods(kind: ast.ClassDef) -> list[str]:
    out = []
    for f in kind.body:
        if not isinstance(f, ast.FunctionDef) or (f.name.startswith("_") and f.name != "__init__"):
            continue
        text = ast.get_docstring(f)
        if text is None:
            continue
        marks = {ast.unparse(d) for d in f.decorator_list}
        if "property" in marks:
            out.append(f"- **`{f.name}`** `{ast.unparse(f.returns) if f.returns else ''}`: {one(text)}")
        else:
            name = kind.name if f.name == "__init__" else f.name
            out.append(f"- **`{name}{signature(f)}`**{' (class method)' if 'classmethod' in marks else ''}: {one(text)}")
    return out


def one(text: str) -> str:
    return " ".join(text.split())


def fields(kind: ast.ClassDef) -> list[str]:
    out = []
    for i, n in enumerate(kind.body):
        if (
            not isinstance(n, ast.AnnAssign)
            or not isinstance(n.target, ast.Name)
            or n.target.id.startswith("_")
            or n.target.id == "model_config"
        ):
            continue
        after = kind.body[i + 1] if i + 1 < len(kind.body) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = ": " + one(after.value.value)
        out.append(f"- `{n.target.id}` `{ast.unparse(n.annotation)}`{text}")
    return out


def main() -> int:
    out = [HEAD]
    parts = [("SmolVM", ["_sync/vm.py:SmolVM", "_sync/files.py:Files", "_sync/network.py:Network"])]
    parts += [("Process", ["_sync/process.py:Process"]), ("ImageBuilder", ["_sync/builder.py:ImageBuilder"])]
    names = (
        "VMConfig",
        "Secret",
        "NetworkPolicy",
        "NetworkRule",
        "InternetSettings",
        "Port",
        "CommandResult",
        "VMInfo",
        "ProcessInfo",
        "FileInfo",
        "NetRecord",
    )
    parts += [(name, [f"models.py:{name}"]) for name in (*names, "RunContext", "Callback")]
    for title, sources in parts:
        for i, source in enumerate(sources):
            file, _, name = source.partition(":")
            kind = classes(file)[name]
            if i == 0:
                out.append(f"## {title}\n\n{ast.get_docstring(kind)}\n")
            else:
                out.append(f"### {ast.get_docstring(kind)}\n".replace(".\n", "\n"))
            out.append("\n".join(fields(kind) + methods(kind)) + "\n")
    out.append("## smolvm.utils\n")
    functions = [
        n for n in ast.parse((SOURCE / "utils.py").read_text()).body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
    ]
    out.append("\n".join(f"- **`{f.name}{signature(f)}`**: {one(ast.get_docstring(f) or '')}" for f in functions) + "\n")
    out.append("## smolvm.exceptions\n")
    tree = classes("exceptions.py")
    out.append(
        "\n".join(
            f"- **`{k.name}`** ({', '.join(ast.unparse(b) for b in k.bases)}): {one(ast.get_docstring(k) or '')}" for k in tree.values()
        )
        + "\n"
    )
    text = "\n".join(out)
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/python-reference.md is not what python/reference.py makes: run it", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
