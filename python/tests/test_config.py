"""Configurations: names, defaults, and what is refused, by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from smolvm import SSH_BOOT_ARGS, InternetSettings, NetRecord, NetworkPolicy, NetworkRule, SmolVMError, ValidationError, VMConfig


def test_every_field_may_be_left_out():
    assert VMConfig().to_wire() == {}


def test_names_of_the_page_and_of_upstream_mean_the_same():
    page = VMConfig(vm_id="a", vcpu_count=2, mem_size_mib=2048, kernel_path="/k", rootfs_path=Path("/r"), boot_args=SSH_BOOT_ARGS)
    assert page == VMConfig(vm_id="a", cpus=2, memory=2048, kernel_path="/k", rootfs_path="/r", boot_args=SSH_BOOT_ARGS)
    assert page.to_wire() == {
        "id": "a",
        "cpus": 2,
        "memory_mib": 2048,
        "kernel_path": "/k",
        "rootfs_path": "/r",
        "boot_args": SSH_BOOT_ARGS,
    }
    assert page.mem_size_mib == page.memory == 2048


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mem_size": 512}, "did you mean mem_size_mib"),
        ({"vcpu": 1}, "did you mean vcpu"),
        ({"wholly_unknown_xyzzy": 1}, "wholly_unknown_xyzzy: there is no such field"),
        ({"workspace_mounts": []}, "workspace_mounts: directories of the host are not mounted"),
        ({"vcpu_count": 0}, "vcpu_count: "),
        ({"vcpu_count": "two"}, "vcpu_count: "),
        ({"memory": 64}, "memory: "),
        ({"mem_size_mib": 512, "memory": 1024}, "mem_size_mib and memory are the same"),
        ({"vm_id": "Upper"}, "vm_id: 'Upper' is not 1 to 63 characters"),
        ({"vm_id": "a" * 64}, "vm_id: "),
        ({"env_vars": {"API_KEY": None}}, "API_KEY is None: is the host's variable not set?"),
        ({"env_vars": {"1X": "a"}}, "'1X' is not a variable's name"),
        ({"env_vars": {"X": 5}}, "X is of type int"),
        ({"env_vars": {"X": "a\0b"}}, "X contains a NUL byte"),
        ({"boot_args": "x" * 2049}, "boot_args: "),
        ({"policy": "shut"}, "policy"),
        ({"policy": "none", "internet_settings": {}}, "policy and internet_settings say the same"),
        ({"policy": {"mode": "allow", "rules": [{"action": "permit", "host": "a"}]}}, "action: "),
        ({"workdir": "here"}, "workdir: 'here' is not absolute"),
        ({"ttl": -1}, "ttl: "),
        ({"ports": [{"guest_port": 0}]}, "guest_port: "),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, says):
    with pytest.raises(ValidationError, match=".*") as e:
        VMConfig(**fields)
    assert says in str(e.value)
    assert isinstance(e.value, SmolVMError)
    assert isinstance(e.value, ValueError)


def test_a_refusal_does_not_tell_values():
    with pytest.raises(ValidationError) as e:
        VMConfig(env_vars={"KEY": "hunter2", "OTHER": None})
    assert "hunter2" not in str(e.value) + repr(e.value.details)


def test_policies():
    p = NetworkPolicy.allow("pypi.org:443", "*.example.com", "192.0.2.0/24:80,8000-8100/tcp", "[2001:db8::/32]:443", "2001:db8::1")
    assert [r.model_dump(exclude_none=True) for r in p.rules] == [
        {"action": "allow", "host": "pypi.org", "ports": ["443"]},
        {"action": "allow", "host": "*.example.com"},
        {"action": "allow", "cidr": "192.0.2.0/24", "ports": ["80", "8000-8100"], "proto": "tcp"},
        {"action": "allow", "cidr": "2001:db8::/32", "ports": ["443"]},
        {"action": "allow", "cidr": "2001:db8::1"},
    ]
    assert VMConfig(policy="none").to_wire()["network"]["mode"] == "none"
    assert NetworkPolicy.deny("example.com").mode == "open"
    old = VMConfig(internet_settings={"allowed_domains": ["https://PyPI.org", "files.pythonhosted.org"]})
    assert old.to_wire()["network"]["rules"] == [{"action": "allow", "host": n} for n in ("pypi.org", "files.pythonhosted.org")]
    assert InternetSettings().policy().mode == "open"
    read = InternetSettings(allowed_domains=["pypi.org"], allowed_http_methods=["get", "HEAD"]).policy()
    assert read == NetworkPolicy.allow("pypi.org=GET,HEAD")
    assert InternetSettings(allowed_http_methods=["GET"]).policy() == NetworkPolicy.allow("*=GET")
    assert NetworkRule(action="deny", host="a.example").model_dump(exclude_none=True) == {"action": "deny", "host": "a.example"}


def test_rules_about_requests():
    tcp = {"ports": ["443"], "proto": "tcp"}
    for text, want in {
        "a.example:443/tcp=GET,HEAD:/a/**,/{b,c}/d": {**tcp, "methods": ["GET", "HEAD"], "paths": ["/a/**", "/{b,c}/d"]},
        r"a.example=*:/x\,y,/udp": {"paths": [r"/x\,y", "/udp"]},
        "a.example=POST": {"methods": ["POST"]},
        "a.example=opaque": {"opaque": True},
        "a.example=*": {"methods": ["*"]},  # which the server refuses, as the next one
        "a.example=GET:/{a,b": {"methods": ["GET"], "paths": ["/{a,b"]},
    }.items():
        rule = NetworkRule.parse("allow", text)
        assert rule.model_dump(exclude_none=True) == {"action": "allow", "host": "a.example", **want}
    record = NetRecord.from_wire({"time": "", "kind": "http", "method": "GET", "path": "/x", "status": 200, "secrets": ["KEY"], "new": 1})
    assert (record.method, record.path, record.status, record.secrets) == ("GET", "/x", 200, ["KEY"])
    assert NetRecord.from_wire({"time": "", "kind": "dns", "qtype": "AAAA"}).qtype == "AAAA"
    assert NetRecord.from_wire({"time": "", "kind": "dropped", "count": 7}).count == 7


def test_both_import_paths():
    from smolvm.build import SSH_BOOT_ARGS as A
    from smolvm.build import ImageBuilder
    from smolvm.images.builder import SSH_BOOT_ARGS as B
    from smolvm.images.builder import ImageBuilder as Other

    assert A == B
    assert ImageBuilder is Other


def test_generated_code_is_up_to_date():
    pytest.importorskip("unasync")
    script = Path(__file__).parents[1] / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_class_of_the_server_has_its_exception():
    import re

    from smolvm.exceptions import BY_CODE

    source = Path(__file__).parents[2] / "errdefs" / "errdefs.go"
    if not source.exists():
        pytest.skip("not in the repository")
    classes = re.findall(r'^\t\w+\s+Class = "(\w+)"', source.read_text(), re.M)
    assert len(classes) > 10
    assert sorted(classes) == sorted(BY_CODE)
