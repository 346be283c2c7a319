"""`rkbench list`: the workloads, optimizers and configs there are, without loading JAX."""

import ast
import pathlib

from rkbench import configs, plugins, workloads
from rkbench.commands.command_line import Parser
from rkbench.configs import common


def run(argv: list[str]) -> None:
    """Prints the lists."""
    Parser(prog=argv[0], description=__doc__).parse_args(argv[1:])
    print("Workloads\n  " + "\n  ".join(workloads.names()))
    print("\nOptimizers (name, own keywords with their defaults)")
    for name, keywords in common.OPTIMIZERS.items():
        own = ", ".join(f"{keyword}={value!r}" for keyword, value in keywords.items())
        print(f"  {name:<24}{own}")
    for name in plugins.OPTIMIZERS.names():
        print(f"  {name:<24}a plug-in")
    print(f"  {'optax:NAME':<24}any optimizer that optax exports, with optax's keywords")
    print("\nConfigs (configs/NAME.py:OPTIMIZER[,WORD...][,KEY=VALUE...])")
    for file in sorted(pathlib.Path(configs.__file__).parent.glob("[a-z]*_*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        print(f"  {'configs/' + file.name:<28}{docstring.splitlines()[0]}")
